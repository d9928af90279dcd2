"""Running a study: the request, the plan, what is printed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.__main__ import main as pipeline_main
from pipeline.cli.console import out
from pipeline.config import ConfigError
from pipeline.launch.base import FAILED, Status
from pipeline.launch.options import LocalConfig, SlurmConfig
from pipeline.stages import plan
from sweeps import run_study as command
from sweeps import study_file, summary
from sweeps.__main__ import main
from sweeps.run_study import run_study
from trainers.errors import Interrupted

STAGES = ("finetune-", "bank-", "distill-")
SMALL = ["data.train_limit=100", "cfg=L1"]


def test_study_options_launcher_and_overrides_are_separated() -> None:
    found = command.read(
        "beta",
        [
            "trials=5",
            "workers=3",
            "hydra/launcher=submitit_slurm",
            "hydra.launcher.partition=gpu",
            *SMALL,
        ],
    )
    assert (found.study.wanted, found.workers) == (5, 3)
    assert isinstance(found.launcher, SlurmConfig)
    assert found.launcher.partition == "gpu"
    assert found.study.base == ["cfg=L1", "data.train_limit=100"]


def test_workers_of_this_machine_run_at_once() -> None:
    launcher = command.read("beta", ["workers=3", *SMALL]).launcher
    assert launcher == LocalConfig(jobs_parallel=3)


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ConfigError) as raised:
        command.read("beta", ["workers=0", "launcher=slrm", "trials=x", "optim.lrr=1"])
    text = str(raised.value)
    for part in ("workers=0", "did you mean submitit_slurm", "trials=x"):
        assert part in text


def test_unknown_options_of_studies_have_a_suggestion_and_options_of_runs_pass() -> None:
    with pytest.raises(ConfigError) as raised:
        command.read("beta", ["trails=5", "worker=2", "overlap_seed=1", "optim.lrr=1"])
    text = str(raised.value)
    for part in ("did you mean trials?", "did you mean workers?", "did you mean optim.lr"):
        assert part in text
    assert "overlap_seed" not in text


def test_workers_of_this_machine_leave_nothing_to_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["beta", "--cancel", *SMALL]) == 0
    assert "nothing to cancel" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    assert main(["study=beta", "trials=5", *SMALL]) == 0
    output = capsys.readouterr().out
    assert "5 trials x 3 seeds (0, 1, 2), tpe" in output
    assert "3 more trials" in output
    assert list(tmp_path.iterdir()) == []


def test_a_plan_has_what_varies_where_names_repeat_and_the_time_of_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "_expected", lambda *_: 60.0)
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("beta_grid", ["method.ib_beta=0,1e-3", "workers=2", *SMALL])
    output = capsys.readouterr().out.splitlines()
    students = [line.split() for line in output if line.startswith("distill-L1-digits-s2")]
    assert [line[3] for line in students] == ["method.ib_beta=0", "method.ib_beta=0.001"]
    assert any("8 min of training, about 4 min with 2 workers" in line for line in output)
    run_study("ladder", [SMALL[0]])
    assert "what varies" not in capsys.readouterr().out
    run_study("beta", ["trials=4", "seeds=0,1", "workers=2", *SMALL])
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last
        == "left     2 more trials to sample, about 4 min of training, about 2 min with 2 workers"
    )


@pytest.mark.parametrize(
    ("given", "heading", "noted"),
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
    given: list[str],
    heading: str,
    noted: bool,
) -> None:
    values = {"sampler": "grid", "seeds": [100], "rows": {"CE": ["cfg=CE"], "KD": ["cfg=KD"]}}
    monkeypatch.setattr(study_file, "read_study", lambda _: values)
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("mine", [SMALL[0], *given])
    output = capsys.readouterr().out
    assert heading in output
    note = "seeds=3 is seed 3 alone; list several as in seeds=0,1,2"
    assert (note in output) == noted


@pytest.mark.parametrize("verb", ["sweep", "distill", "bank", "multirun"])
def test_a_dry_run_without_the_data_set_prints_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """As on a login node: stages without keys, and one line that says why."""
    data = tmp_path / "empty"
    given = ["bench=fashion_mnist", f"data.root={data}", f"runtime.store={tmp_path}/store"]
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.setattr(out, "width", 1000, raising=False)
    command_line = {
        "sweep": ["methods", *given],
        "distill": ["distill", "cfg=L1", *given],
        "bank": ["bank", *given],
        "multirun": ["distill", "-m", "cfg=L1", "seed=0,1", *given],
    }[verb]
    code = (main if verb == "sweep" else pipeline_main)(command_line)
    output, errors = capsys.readouterr()
    assert code == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("unknown here")]
    reason = "keys, finished runs and times, because data set fashion_mnist is missing: "
    assert reason in line
    assert str(data) in line
    stages = [line.split() for line in output.splitlines() if line.startswith(STAGES)]
    assert {tuple(stage[1:3]) for stage in stages} == {("unknown", "unknown")}
    assert len(stages) == {"sweep": 34, "distill": 5, "bank": 4, "multirun": 6}[verb]
    assert ("methods (key unknown): 10 trials x 3 seeds" in output) == (verb == "sweep")
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_its_data_set_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["bench=fashion_mnist", f"data.root={tmp_path}/empty", f"runtime.store={tmp_path}"]
    assert main(["beta", *given]) == 2
    assert "data set fashion_mnist is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "base", "output"),
    [
        ("beta_grid", "cfg=CE", "method.ib_beta: changes nothing in CE: 10 of its 10 values"),
        ("beta", "cfg=KD", "method.ib_beta: changes nothing in KD: 2 of its 2 values"),
        pytest.param(
            *("switches", "cfg=CE", "row: changes nothing in CE: 23 of its 25 values"),
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_varying_an_option_that_changes_nothing_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    base: str,
    output: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name, base, SMALL[0]]) == 2
    assert output in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["joint", "overlap"])
def test_an_option_that_matters_for_some_configurations_may_vary(name: str) -> None:
    """The control of `overlap` has no teachers: its trials are one run."""
    assert command.read(name, [SMALL[0]]).study.name == name


def test_a_plan_has_the_runs_that_others_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"ours": ["cfg=CE_matched", "budget.matched_to=L1"]}
    monkeypatch.setattr(study_file, "read_study", lambda _: {"sampler": "grid", "rows": rows})
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.chdir(tmp_path)
    run_study("mine", [SMALL[0], "seeds=0,1"])
    output = capsys.readouterr().out
    for rung in ("L1", "CE", "CE_matched"):
        assert output.count(f"distill-{rung}-digits-s1") == 1
    assert output.count("finetune-resnet20") == 2


def test_help_of_a_known_study_and_of_an_unknown_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ladder", "--help"]) == main(["--help"]) == main(["work", "beta", "-h"]) == 0
    assert capsys.readouterr().out.count("python -m sweeps STUDY key=value") == 3
    assert main(["lader", "--help"]) == 2
    assert "study=lader: unknown; did you mean ladder?" in capsys.readouterr().err


def test_no_study_or_two_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials=3"]) == 2
    assert main(["beta", "ladder"]) == 2
    assert main(["bet"]) == 2
    assert "did you mean beta" in capsys.readouterr().err


def test_cancelled_workers_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = command.read("beta", ["trials=4", "workers=2", *SMALL])
    trial_store, rounds = request.trial_store(), []

    def ended(*_: object, **__: object) -> dict[str, Status]:
        trial = trial_store.main.ask()  # a trial has ended: another round would begin
        trial_store.main.tell(trial, 0.5)
        return {"worker-0": Status(FAILED, "job 17_0", cancelled=True)}

    monkeypatch.setattr(command, "follow", ended)
    monkeypatch.setattr(command, "environment_of", lambda *_: ())
    monkeypatch.setattr(command, "_tasks", lambda *_: [])
    launcher = SimpleNamespace(submit=lambda tasks, stop: rounds.append(tasks))
    place = SimpleNamespace(parent_id=lambda: "run")
    session = SimpleNamespace(target=None, store=None, stop=lambda: False)
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
def test_the_command_that_continues_has_work_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, begun: int, ended: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    trial_store = command.read("beta", [f"trials={wanted}", *SMALL]).trial_store()
    monkeypatch.setattr(trial_store, "begun", lambda: list(range(begun)))
    monkeypatch.setattr(trial_store, "ended", lambda: list(range(ended)))
    target = SimpleNamespace(uri="sqlite:////x.db", experiment="e", experiment_name=lambda: "e")
    assert summary.next_commands(trial_store, (), target)[0] == line
