"""docs/extending.md, followed to the letter in one copy of the project, in one process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pipeline.config.groups import CONF

pytestmark = pytest.mark.thorough  # half a minute of training

ROOT = CONF.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
TREE = ("analysis", "conf", "pipeline", "trainers")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.M | re.S)
TINY = (
    "data.train_limit=100",
    "optim.batch=20",
    "budget.student_epochs=2",
    "teacher.0.recipe.epochs=1",
    "teacher.1.recipe.epochs=1",
    "runtime.log_model=false",
    "runtime.device=cpu",
)
# Importing torch takes longer than these runs: one interpreter runs every command of the page.
PROGRAM = """
import json, sys
from pipeline.__main__ import main
from pipeline.config import reference

for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    assert code == 0, f"exit {code}: {arguments}"
reference.main()
"""


class Followed(NamedTuple):
    """The copy of the project after all sections, and the results of its students by name."""

    project: Path
    results: dict[str, dict]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    project = tmp_path_factory.mktemp("project")
    for part in TREE:
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "docs", project / "docs", ignore=shutil.ignore_patterns("data", "images")
    )
    (project / "benchmarks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", project)
    commands = [line for section in PAGE.split("\n## ")[1:] for line in follow(section, project)]
    runs = [shlex.split(line)[3:] for line in commands if line.startswith("python -m pipeline ")]
    assert commands[-1] == "python -m pipeline.config.reference"
    assert len(runs) == len(commands) - 1
    tiny = [run + [*TINY] * (run[0] == "distill") for run in runs]
    _python(project, "-c", PROGRAM, json.dumps(tiny))
    found = {}
    for path in (project / "store" / "runs" / "distill").glob("*/result.json"):
        name = json.loads(path.with_name("spec.json").read_text())["body"]["name"]
        found[name] = json.loads(path.read_text())["body"]
    return Followed(project, found)


def follow(section: str, project: Path) -> list[str]:
    """Do what a section of the page says; returns the commands that it ends with."""
    commands: list[str] = []
    for block in BLOCK.finditer(section):
        language, code = block[2], textwrap.dedent(block[3])
        before = section[: block.start()].rpartition("```")[2] or section[: block.start()]
        paths = re.findall(r"`([\w./]+\.(?:py|yaml))`", section[: block.start()])
        if language == "text":  # shown, not followed
            continue
        if language == "bash":
            commands += code.splitlines()
        elif language == "diff" and code.startswith("-"):
            _replace(project / paths[-1], code)
        elif language == "diff":
            _add_lines(project / paths[-1], re.findall(r"`([A-Z]+)`", before)[-1], code)
        elif not paths:
            _python(project, "-c", code)
        else:  # a new file, or new lines at the end of an existing one
            with (project / paths[-1]).open("a", encoding="utf-8") as file:
                file.write(code)
    return commands


def _replace(path: Path, diff: str) -> None:
    """The lines with - become those with +."""
    old, new = (
        "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[0] == sign) for sign in "-+"
    )
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def _add_lines(path: Path, registry: str, diff: str) -> None:
    """All but the last line above the registry, the last one into it."""
    added = [line.removeprefix("+") for line in diff.splitlines()]
    text = path.read_text(encoding="utf-8")
    (opening,) = re.findall(rf"^{registry}\b.*\{{", text, re.M)
    new = "\n".join([*added[:-1], "", f"{opening}\n{added[-1]}\n"])
    path.write_text(text.replace(opening, new), encoding="utf-8")


def _python(project: Path, *arguments: str) -> str:
    store = f"sqlite:///{project / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project), "MLFLOW_TRACKING_URI": store},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_method(followed: Followed) -> None:
    last = followed.results["distill-logit_mse-digits-s0"]["history"][-1]["metrics"]
    assert last["train/loss/mse"] > 0
    assert last["train/loss/total"] == pytest.approx(
        last["train/loss/ce"] + last["train/loss/mse"], rel=1e-5
    )
    assert len(list((followed.project / "store/runs/finetune").glob("*/result.json"))) == 2


def test_a_model(followed: Followed) -> None:
    convolutions = 9 * (8 + 8 * 16 + 16 * 32)
    norms, head = 2 * (8 + 16 + 32), 32 * 10 + 10
    metrics = followed.results["distill-CE-digits-s0"]["metrics"]
    assert metrics["cost/parameters"] == convolutions + norms + head


def test_a_data_set(followed: Followed) -> None:
    assert followed.results["distill-CE-digits_all-arrays-s0"]["metrics"]["test/top1"] >= 0.4


def test_a_loss(followed: Followed) -> None:
    spec = importlib.util.spec_from_file_location(
        "losses_of_the_page", followed.project / "trainers" / "losses.py"
    )
    assert spec is not None
    assert spec.loader is not None
    losses = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(losses)
    found = losses.centred_distance(torch.tensor([[5.0, 9.0], [1.0, 1.0]]), torch.zeros(2, 2))
    assert found.tolist() == [4.0, 0.0]


def test_a_bench(followed: Followed) -> None:
    assert followed.results["distill-CE-stripes-s0"]["metrics"]["test/top1"] >= 0.4


def test_a_metric_and_a_warning(followed: Followed) -> None:
    history = followed.results["distill-logit_mse-digits-s0"]["history"]
    values = [entry["metrics"]["kd/logit_distance"] for entry in history]
    assert history[-1]["metrics"]["health/logit_distance_grows"] == float(values[-1] >= values[0])


def test_a_section_of_the_report(followed: Followed) -> None:
    folder = followed.project / "report/asib/logit_distance"
    assert "\n## Logit distance (digits overlap=0)\n" in (folder / "report.md").read_text()
    pictures = [path.name for path in folder.glob("*.png")]
    assert pictures == ["logit_distance_digits_overlap-0.png"]
    rows = re.findall(r"^\| (distill-\S+) \| (\S+) \|$", (folder / "report.md").read_text(), re.M)
    assert [name for name, _ in rows] == ["distill-logit_mse-digits-s0"]
    last = followed.results["distill-logit_mse-digits-s0"]["history"][-1]["metrics"]
    assert float(rows[0][1]) == pytest.approx(last["kd/logit_distance"], abs=1e-3)


def test_the_reference_lists_what_was_added(followed: Followed) -> None:
    text = (followed.project / "docs" / "configuration.md").read_text()
    assert "`method.mse_weight`" in text


def test_a_column_of_the_ladder(followed: Followed) -> None:
    report = (followed.project / "report/asib/ladder/report.md").read_text()
    assert "| memory, MiB | test CE, nats |" in report.replace("  ", " ")


def test_an_option_of_slurm(followed: Followed) -> None:
    code = """if True:
        from pathlib import Path
        from pipeline.launch.options import take_options
        from pipeline.launch.submission import script
        words = ["hydra/launcher=submitit_slurm", "hydra.launcher.licenses=lab"]
        print(script(Path("x.sh"), take_options(words)[0], None, []))
    """
    assert "#SBATCH --licenses=lab" in _python(followed.project, "-c", code)
