"""Completion by bash: what is offered, and in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.completion import PIPELINE, SWEEPS, candidates
from pipeline.config.groups import CONF

VERBS = ["distill", "evaluate", "show"]


@pytest.mark.parametrize(
    ("line", "program", "expected"),
    [
        ("asib ", PIPELINE, [*VERBS, "sweep"]),
        ("python -m pipeline dis", PIPELINE, ["distill"]),
        ("asib distill bench=dig", PIPELINE, ["bench=digits", "bench=digits_all"]),
        ("asib distill +experiment=few", PIPELINE, ["+experiment=few_labels"]),
        ("asib distill teacher@teacher.0=resnet3", PIPELINE, ["teacher@teacher.0=resnet32x4"]),
        ("asib distill hydra/launcher=", PIPELINE, None),
        ("asib distill optim.sch", PIPELINE, ["optim.schedule="]),
        ("asib distill ~optim.sch", PIPELINE, ["~optim.schedule"]),
        ("asib distill optim.schedule=cos", PIPELINE, ["optim.schedule=cosine"]),
        ("asib distill runtime.log_model=", PIPELINE, ["false", "true"]),
        ("asib evaluate split=v", PIPELINE, ["split=val"]),
        ("asib sweep beta_", PIPELINE, ["beta_grid"]),
        ("python -m sweeps beta sampler=t", SWEEPS, ["sampler=tpe"]),
        ("asib distill --cf", PIPELINE, ["--cfg"]),
        ("asib distill se", PIPELINE, ["seed=", "select="]),
    ],
)
def test_what_is_offered(line: str, program: str, expected: list[str] | None) -> None:
    found = candidates(line, program, VERBS)
    if expected is None:
        expected = ["hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"]
    assert [one.removeprefix("runtime.log_model=") for one in found] == sorted(expected)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_in_bash(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    script = f"""
cd {CONF.parent}
eval "$({sys.executable} -m pipeline -sc install=bash)"
complete -p python asib
PATH={Path(sys.executable).parent}:$PATH
COMP_LINE="python -m pipeline distill bench=dig" COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=($COMP_LINE) COMP_CWORD=4
_asib_complete
echo "found: ${{COMPREPLY[*]}}"
eval "$({sys.executable} -m pipeline --shell-completion uninstall=bash)"
complete -p python || echo gone
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("complete -o nospace -o default -F _asib_complete python") or (
        "_asib_complete" in lines[0]
    )
    assert lines[-2:] == ["found: bench=digits bench=digits_all", "gone"], done.stderr
