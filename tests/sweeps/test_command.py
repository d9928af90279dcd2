"""The command line of studies: what is asked for, and what is shown."""

from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.launcher import LocalConfig, SlurmConfig
from sweeps import command
from sweeps.__main__ import main

SMALL = ["data.train_limit=100", "cfg=L1"]


def test_study_options_launcher_and_overrides_are_told_apart() -> None:
    found = command.read("beta", ["trials=5", "workers=3", "launcher=slurm",
                                  "hydra.launcher.partition=gpu", *SMALL])  # fmt: skip
    assert (found.study.wanted, found.workers) == (5, 3)
    assert isinstance(found.launcher, SlurmConfig)
    assert found.launcher.partition == "gpu"
    assert found.study.base == ["cfg=L1", "data.train_limit=100"]


def test_workers_of_this_machine_run_at_once() -> None:
    launcher = command.read("beta", ["workers=3", *SMALL]).launcher
    assert launcher == LocalConfig(jobs_parallel=3)


def test_all_mistakes_come_together() -> None:
    with pytest.raises(ConfigError) as raised:
        command.read("beta", ["workers=0", "launcher=slrm", "trials=x", "optim.lrr=1"])
    text = str(raised.value)
    for part in ("workers=0", "did you mean slurm", "trials=x"):
        assert part in text


def test_mistyped_options_of_studies_are_told_and_options_of_runs_are_not() -> None:
    with pytest.raises(ConfigError) as raised:
        command.read("beta", ["trails=5", "worker=2", "overlap_seed=1", "optim.lrr=1"])
    text = str(raised.value)
    for part in ("did you mean trials?", "did you mean workers?", "did you mean optim.lr"):
        assert part in text
    assert "overlap_seed" not in text


def test_nothing_of_this_machine_outlives_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["beta", "--cancel", *SMALL]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_plans_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    assert main(["study=beta", "trials=5", "launcher=", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "5 trials x 3 seeds, tpe" in said
    assert "3 more trials" in said
    assert list(tmp_path.iterdir()) == []


def test_no_study_or_two_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials=3"]) == 2
    assert main(["beta", "ladder"]) == 2
    assert main(["bet"]) == 2
    assert "did you mean beta" in capsys.readouterr().err
