"""Every line of Hydra's manual of the command line, with every verb that composes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pipeline.__main__ import main
from pipeline.cli.arguments import is_multirun, plain_switches
from pipeline.cli.hydra_flags import INFO, Shown, taken
from sweeps.__main__ import main as sweep


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Hydra's --info prints by the root logger, whose handlers it replaces."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level


def run(words: list[str]) -> int:
    return sweep(words[1:]) if words[0] == "sweep" else main(words)


@pytest.mark.parametrize(
    "start", [["distill"], ["finetune"], ["bank"], ["main"], ["sweep", "beta"]]
)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], "key=value"),
        (["--hydra-help"], "--shell-completion, -sc"),
        (["--version"], "asib "),
        (["--cfg", "job"], "data:"),
        (["--cfg", "job", "--package", "optim"], "# @package optim"),
        (["--cfg", "hydra", "-p", "hydra.launcher"], "hydra_plugins.asib_launcher.LocalLauncher"),
        (["--cfg", "hydra", "--resolve"], "dir: multirun/2"),
        (["-c", "all", "optim=sgd"], "name: sgd  # conf/optim/sgd.yaml"),
        (["-cn", "experiment/few_labels", "-c", "job"], "# conf/experiment/few_labels.yaml"),
        (["--config-name=config", "--cfg"], "seed: 0"),
        (["bench=digits_all", "~teacher.1", "--cfg", "-p", "teacher"], "# @package teacher"),
        (["+optim.lr=0.125", "--cfg"], "lr: 0.125  # command line"),
        (["++optim.lr=0.125", "--cfg"], "lr: 0.125  # command line"),
        (["+experiment=few_labels", "--cfg"], "conf/experiment/few_labels.yaml"),
    ],
)
def test_flags(
    start: list[str], words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*start, *words]) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("start", [["distill"], ["sweep", "beta"]])
@pytest.mark.parametrize("what", INFO)
def test_info(start: list[str], what: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*start, "cfg=L2", "--info", what]) == 0
    found = capfd.readouterr().out
    parts = {"defaults": "cfg/L2", "defaults-tree": "cfg: L2", "searchpath": "/conf"}
    assert parts.get(what, "") in found
    if what == "plugins":
        assert "Launcher:" in found
        assert "SlurmLauncher" in found


@pytest.mark.parametrize("start", [["distill"], ["finetune"], ["sweep", "beta"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--info", "nope"], "--info nope: unknown (allowed: all, config"),
        (["--cfg", "job", "-p", "optm"], "--package optm: unknown; did you mean optim?"),
        (["-cn", "few_labels"], "--config-name few_labels: unknown; did you mean experiment/few_l"),
        (["--config-path", "conf"], "--config-path: no flag here: the configuration is in conf/"),
        (["--experimental-rerun", "x.pickle"], "no pickle is kept of a run"),
        (["~optim.lrr"], "~optim.lrr: no such option; did you mean optim.lr"),
        (["~student"], "~student: a run needs one; choose another, as in student=NAME"),
        (["~optim.lr=7"], "~optim.lr=7: it is 0.001"),
        (["~runtime.threads"], "~runtime.threads: no file sets it"),
        (["hydra.run.dir=x"], "hydra.run.dir: not used here: runtime.store=FOLDER"),
        (["hydra/sweeper=x"], "hydra/sweeper: not used here: `python -m sweeps STUDY"),
    ],
)
def test_errors(
    start: list[str], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*start, *words]) == 2
    assert message in capsys.readouterr().err


def test_verbs_that_compose_nothing_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "--cfg"]) == 2
    assert "analyze composes no run" in capsys.readouterr().err
    assert main(["sync", "~seed"]) == 2
    assert "~seed: sync composes no run" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["cfg=CE,L2", "seed=range(1,3)", "cfg=glob(L*)", "optim.lr=1,2"])
def test_several_values_without_m(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", text]) == 2
    found = capsys.readouterr().err
    assert f"  - {text}: several values need -m (with mlflow run: -P multirun=true)" in found
    assert f"one run each: python -m pipeline distill -m {text}\n" in found


def test_what_mlflow_makes_of_parameters_that_are_not_declared() -> None:
    words = ["distill", "cfg=CE,KD", "--hydra/launcher", "submitit_local", "--multirun", "true"]
    assert plain_switches([*words, "--dry-run", "false"]) == words[:-1]
    assert plain_switches(["--dry_run", "true", "dry_run=true"]) == ["--dry-run", "--dry-run"]
    assert plain_switches(["--multirun=false", "run=true"]) == ["run=true"]
    assert is_multirun(["cfg=CE", "--hydra/launcher", "submitit_local"])
    assert taken(["--cfg", "L3"]) == (Shown(), ["--cfg", "L3"], [])
    assert taken(["--info", "defaults", "--resolve"])[0] == Shown(info="defaults", resolve=True)
