"""The command line of studies: what is asked for, and what is shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import ConfigError
from pipeline.launch.base import FAILED, LocalConfig, SlurmConfig, Status
from pipeline.stages import plan
from sweeps import run_study as command
from sweeps import study_file, summary
from sweeps.__main__ import main
from sweeps.run_study import run_study
from trainers.errors import Interrupted

SMALL = ["data.train_limit=100", "cfg=L1"]


def test_study_options_launcher_and_overrides_are_told_apart() -> None:
    found = command.read(
        "beta", ["trials=5", "workers=3", "launcher=slurm", "hydra.launcher.partition=gpu", *SMALL]
    )
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
    assert "5 trials x 3 seeds (0, 1, 2), tpe" in said
    assert "3 more trials" in said
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_varies_where_names_repeat_and_the_time_of_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "_expected", lambda *_: 60.0)
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("beta_grid", ["method.ib_beta=0,1e-3", "workers=2", *SMALL])
    said = capsys.readouterr().out.splitlines()
    students = [line.split() for line in said if line.startswith("distill-L1-digits-s2")]
    assert [line[3] for line in students] == ["method.ib_beta=0", "method.ib_beta=0.001"]
    assert any("8 min of training, about 4 min with 2 workers" in line for line in said)
    run_study("ladder", [SMALL[0]])
    assert "what varies" not in capsys.readouterr().out
    run_study("beta", ["trials=4", "seeds=0,1", "workers=2", *SMALL])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "to draw  2 more trials, about 4 min of training, about 2 min with 2 workers"


@pytest.mark.parametrize(
    ("typed", "heading", "noted"),
    [
        (["seeds=3"], "2 trials x seed 3, grid", True),
        (["seeds=0"], "2 trials x seed 0, grid", False),
        (["seeds=3,4"], "2 trials x 2 seeds (3, 4), grid", False),
        ([], "2 trials x seed 100, grid", False),
    ],
)
def test_a_number_of_seeds_is_not_taken_for_a_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    heading: str,
    noted: bool,
) -> None:
    values = {"sampler": "grid", "seeds": [100], "rows": {"CE": ["cfg=CE"], "KD": ["cfg=KD"]}}
    monkeypatch.setattr(study_file, "read_study", lambda _: values)
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("mine", [SMALL[0], *typed])
    said = capsys.readouterr().out
    assert heading in said
    note = "seeds=3 is seed 3 alone; several are listed, as in seeds=0,1,2"
    assert (note in said) == noted


@pytest.mark.parametrize(
    ("name", "base", "said"),
    [
        ("beta_grid", "cfg=CE", "method.ib_beta: changes nothing in CE: 10 of its 10 points"),
        ("beta", "cfg=KD", "method.ib_beta: changes nothing in KD: 2 of its 2 points"),
        ("switches", "cfg=CE", "row: changes nothing in CE: 19 of its 21 points"),
    ],
)
def test_what_is_varied_and_changes_nothing_is_a_mistake(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    base: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name, base, SMALL[0]]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["beta_grid", "joint", "ladder", "overlap"])
def test_what_counts_for_some_rows_may_be_varied_for_all(name: str) -> None:
    """The control of `overlap` has no teachers: its trials are one run, told as such."""
    assert command.read(name, [SMALL[0]]).study.name == name


def test_a_plan_has_the_runs_that_others_follow_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"ours": ["cfg=CE_matched", "budget.matched_to=L1"]}
    monkeypatch.setattr(study_file, "read_study", lambda _: {"sampler": "grid", "rows": rows})
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("mine", [SMALL[0], "seeds=0,1"])
    said = capsys.readouterr().out
    for rung in ("L1", "CE", "CE_matched"):
        assert said.count(f"distill-{rung}-digits-s1") == 1
    assert said.count("finetune-resnet20") == 2


def test_help_of_a_study_that_is_there_and_of_one_that_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ladder", "--help"]) == main(["--help"]) == main(["work", "beta", "-h"]) == 0
    assert capsys.readouterr().out.count("python -m sweeps STUDY key=value") == 3
    assert main(["lader", "--help"]) == 2
    assert "study=lader: unknown; did you mean ladder?" in capsys.readouterr().err


def test_no_study_or_two_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials=3"]) == 2
    assert main(["beta", "ladder"]) == 2
    assert main(["bet"]) == 2
    assert "did you mean beta" in capsys.readouterr().err


def test_workers_that_someone_ended_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = command.read("beta", ["trials=4", "workers=2", *SMALL])
    trial_store, rounds = request.trial_store(), []

    def ended(*_: object, **__: object) -> dict[str, Status]:
        trial = trial_store.main.ask()  # something was achieved: another round would begin
        trial_store.main.tell(trial, 0.5)
        return {"worker-0": Status(FAILED, "job 17_0", cancelled=True)}

    monkeypatch.setattr(command, "follow", ended)
    monkeypatch.setattr(command, "environment_of", lambda *_: ())
    monkeypatch.setattr(command, "_tasks", lambda *_: [])
    launcher = SimpleNamespace(submit=rounds.append)
    place = SimpleNamespace(parent_id=lambda: "run")
    session = SimpleNamespace(target=None, store=None)
    with pytest.raises(Interrupted, match="cancelled: worker-0"):
        command._follow(request, trial_store, launcher, session, place)
    assert len(rounds) == 1


@pytest.mark.parametrize(
    ("wanted", "begun", "ended", "line"),
    [
        (4, 4, 4, "more trials:  python -m sweeps beta trials=8"),
        (2, 8, 8, "more trials:  python -m sweeps beta trials=16"),
        (5, 4, 2, "again:        python -m sweeps beta trials=5"),
    ],
)
def test_the_command_to_go_on_does_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, begun: int, ended: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    trial_store = command.read("beta", [f"trials={wanted}", *SMALL]).trial_store()
    monkeypatch.setattr(trial_store, "begun", lambda: list(range(begun)))
    monkeypatch.setattr(trial_store, "ended", lambda: list(range(ended)))
    assert summary.next_commands(trial_store, (), SimpleNamespace(experiment="e"))[0] == line
