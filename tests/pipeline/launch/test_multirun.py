"""Many students with one command: what is expanded, checked and handed to the launcher."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from submitit import AutoExecutor
from submitit.slurm.slurm import SlurmExecutor

from pipeline.config import ConfigError, compose
from pipeline.identity import run_key
from pipeline.launch import local as local_jobs
from pipeline.launch import monitor, multirun, slurm
from pipeline.launch.base import (
    DONE,
    FAILED,
    HALTED,
    NOT_RUN,
    RUNNING,
    WAITING,
    LocalConfig,
    SlurmConfig,
    Status,
    Task,
    take_options,
)
from pipeline.launch.local import Local
from pipeline.launch.monitor import follow
from pipeline.launch.slurm import parameters
from pipeline.stages.view_bank import bank_key
from pipeline.storage.run_store import Store
from tests.pipeline import records
from trainers.errors import Interrupted

SMALL = "data.train_limit=100"


def test_combinations_are_those_of_hydra_in_the_order_of_nested_loops() -> None:
    found = multirun.expand(["cfg=L0,L1", "seed=range(0,2)", "optim.lr=choice(0.1,1e-2)", SMALL])
    assert len(found) == 8
    assert found[0] == ("cfg=L0", "seed=0", "optim.lr=0.1", SMALL)
    assert found[1] == ("cfg=L0", "seed=0", "optim.lr=0.01", SMALL)
    assert found[-1] == ("cfg=L1", "seed=1", "optim.lr=0.01", SMALL)


@pytest.mark.parametrize("text", ["data.mean=[1,2]", "runtime.store=/a b=c", "method.a='x,y'"])
def test_lists_and_quoted_texts_are_one_value(text: str) -> None:
    assert multirun.expand([text]) == [(text,)]


def test_all_errors_of_all_jobs_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        multirun.read(
            [
                "cfg=L0,L9",
                "seed=0,-1",
                "hydra/launcher=slurm",
                "hydra.launcher.partitoin=gpu",
                "hydra.launcher.timeout_min=0",
            ]
        )
    text = str(raised.value)
    assert text.startswith("4 errors")
    for part in ("cfg=L9: unknown", "seed=-1", "did you mean partition?", "timeout_min=0"):
        assert text.count(part) == 1, text


def test_an_unknown_launcher_lists_the_launchers() -> None:
    _, _, errors = take_options(["hydra/launcher=slrum"])
    assert "did you mean slurm?" in errors[0]
    assert "local, slurm" in errors[0]


def test_an_option_of_another_launcher_names_that_launcher() -> None:
    _, _, errors = take_options(["hydra.launcher.gres=null"])
    assert errors == [
        "hydra.launcher.gres: no option of hydra/launcher=local, but of hydra/launcher=slurm: give "
        "that too"
    ]


def test_launcher_options_have_types() -> None:
    config, rest, errors = take_options(
        [
            "hydra/launcher=slurm",
            "hydra.launcher.partition=a,b",
            "hydra.launcher.gres=null",
            "hydra.launcher.setup=['module load x']",
            "cfg=L0",
        ]
    )
    assert not errors
    assert rest == ["cfg=L0"]
    assert isinstance(config, SlurmConfig)
    assert (config.partition, config.gres, config.setup) == ("a,b", None, ["module load x"])


def test_options_that_only_sbatch_has_go_to_it_as_they_are() -> None:
    """Those that are null are left out, and submitit accepts the rest."""
    config = SlurmConfig(partition="a,b", gres=None, requeue=False, setup=["module load x "])
    found = parameters(config, ["7"])
    assert found["slurm_additional_parameters"] == {
        "partition": "a,b",
        "no-requeue": True,
        "dependency": "afterok:7",
        "kill-on-invalid-dep": "yes",
    }
    assert found["slurm_setup"] == ["module load x"]
    slurms = {f"slurm_{name}" for name in SlurmExecutor._valid_parameters()}
    assert found.keys() <= AutoExecutor._valid_parameters() | slurms


def test_the_same_experiment_is_one_job() -> None:
    request = multirun.read(["cfg=CE", "method.ib_beta=0.1,0.2", SMALL])
    assert len(request.students) == 1


def test_names_differ_where_students_do() -> None:
    request = multirun.read(["cfg=L1", "method.ib_beta=0.1,0.2", SMALL])
    first, second = request.students
    assert first.name == f"distill-L1-digits-s0-{first.key}" != second.name


def tasks(store: Store, *overrides: str) -> dict[str, list[Task]]:
    """The tasks of a multirun, by verb."""
    found: dict[str, list[Task]] = {"finetune": [], "bank": [], "distill": []}
    for task in multirun.tasks_of(multirun.read([*overrides, SMALL]).students, store, ()):
        assert all(name in {t.name for ts in found.values() for t in ts} for name in task.after)
        found[task.arguments[0]].append(task)
    return found


def test_missing_teachers_and_banks_are_one_job_each_before_students(
    tmp_path: Path,
) -> None:
    found = tasks(Store(tmp_path), "cfg=CE,KD", "seed=0,1")
    for verb in ("finetune", "bank"):
        assert [task.arguments[1] for task in found[verb]] == ["teacher=0", "teacher=1"]
    assert [t.after for t in found["bank"]] == [(t.name,) for t in found["finetune"]]
    waits = {task.name: set(task.after) for task in found["distill"]}
    assert waits["distill-CE-digits-s0"] == set()
    assert waits["distill-KD-digits-s1"] == {t.name for t in found["finetune"] + found["bank"]}


def test_what_is_finished_is_no_job(tmp_path: Path) -> None:
    store, config = Store(tmp_path), compose(["cfg=KD", SMALL])
    for number in (0, 1):
        folder = store.run("finetune", run_key("finetune", config, teacher=number))
        folder.finish(records.result())
    store.run("bank", bank_key(config, 0)).write_json(
        "bank", {"parts": [], "val": "0", "seconds": 1.0}
    )
    found = tasks(store, "cfg=KD", "seed=0,1")
    assert not found["finetune"]
    (bank,) = found["bank"]
    assert (bank.arguments[1], bank.after) == ("teacher=1", ())
    assert {task.after for task in found["distill"]} == {(bank.name,)}


def test_fresh_crops_need_no_banks(tmp_path: Path) -> None:
    found = tasks(Store(tmp_path), "cfg=KD", "seed=0,1", "data.views=0")
    assert (len(found["finetune"]), len(found["bank"]), len(found["distill"])) == (2, 0, 2)


# Local ----------------------------------------------------------------------------------------


def local(tmp_path: Path, **states: str) -> Local:
    """A launcher in which no process can start."""
    found = Local(LocalConfig(jobs_parallel=1), tmp_path)
    found.slots = 0
    for name, state in states.items():
        found.tasks[name], found.status[name] = Task(name, "pipeline", ()), Status(state)
    return found


def test_a_task_that_depends_on_a_failed_job_does_not_run(tmp_path: Path) -> None:
    launcher = local(tmp_path, teacher=FAILED)
    launcher.tasks["student"] = Task("student", "pipeline", (), after=("teacher",))
    launcher.status["student"] = Status()
    assert launcher.poll()["student"].state == FAILED


@pytest.mark.parametrize(
    ("code", "state"), [(0, DONE), (75, WAITING), (1, FAILED), (2, FAILED), (-9, FAILED)]
)
def test_status_after_an_exit_code(tmp_path: Path, code: int, state: str) -> None:
    assert local(tmp_path, a=RUNNING)._after("a", code).state == state


def test_a_killed_worker_is_restarted_a_limited_number_of_times(tmp_path: Path) -> None:
    launcher = local(tmp_path)
    launcher.tasks["w"] = Task("w", "sweeps", (), restarts=1)
    assert [launcher._after("w", -9).state for _ in range(2)] == [WAITING, FAILED]


def test_after_a_request_to_stop_no_task_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = local(tmp_path, a=WAITING)
    launcher.slots = 1
    monkeypatch.setattr(local_jobs, "_SERVER", None)  # no process can start
    with pytest.raises(Interrupted):
        follow(launcher, SimpleNamespace(stop=lambda: True))
    assert launcher.status["a"] == Status(HALTED, "not started")


def test_a_job_that_was_starting_up_is_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, signals = local(tmp_path, a=RUNNING), []

    def cancel() -> None:
        launcher.stopping = True
        signals.append(1)
        if len(signals) == 2:  # now it receives it
            launcher.status["a"] = launcher._after("a", -15)

    monkeypatch.setattr(launcher, "cancel", cancel)
    monkeypatch.setattr(monitor, "SIGNAL_S", 0.0)
    with pytest.raises(Interrupted):
        follow(launcher, SimpleNamespace(stop=lambda: True))
    assert launcher.status["a"].state == HALTED


# Slurm ----------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands as scripts: sbatch counts jobs, squeue prints a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "sbatch": f'cat "$1" >> {folder}/scripts; n=$(cat {folder}/n); echo $((n+1)) > {folder}/n; '
        'echo "Submitted batch job $n"',
        "srun": "true",
        "squeue": f"cat {folder}/queue",
        "scancel": f'echo "$@" > {folder}/cancelled',
        "scontrol": f'echo "$@" > {folder}/requeued',
    }
    for name, text in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (folder / "n").write_text("17\n")
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


TEACHER = Task("teacher", "pipeline", ("finetune",))
STUDENTS = [Task(name, "pipeline", ("distill",), after=("teacher",)) for name in ("a", "b")]


def test_students_are_an_array_that_waits_for_the_teacher(cluster: Path, tmp_path: Path) -> None:
    config = SlurmConfig(partition="gpu", timeout_min=30, poll_s=0.1)
    launcher = slurm.Slurm(config, tmp_path / "jobs")
    launcher.submit([TEACHER, *STUDENTS])
    assert launcher.jobs == {"teacher": "17", "a": "18_0", "b": "18_1"}
    scripts = (cluster / "scripts").read_text()
    for flag in (
        "--dependency=afterok:17",
        "--kill-on-invalid-dep=yes",
        "--partition=gpu",
        "--array=0-1%2",
        "--signal=USR2@120",
        "--requeue",
        "--gres=gpu:1",
        "--time=30",
    ):
        assert f"#SBATCH {flag}" in scripts, scripts
    assert re.search(r"^srun .*--cpus-per-task=4 ", scripts, re.M)  # srun does not inherit it


def test_the_same_command_follows_the_jobs_in_the_queue(cluster: Path, tmp_path: Path) -> None:
    config = SlurmConfig(poll_s=0.1)
    first, again = (slurm.Slurm(config, tmp_path / "jobs") for _ in range(2))  # at once
    first.submit([TEACHER, *STUDENTS])
    (cluster / "queue").write_text("18_0 RUNNING\n18_1 PENDING\n99 RUNNING\n")
    again.submit(STUDENTS)
    assert again.jobs["a"] == "18_0"
    assert [one.state for one in again.poll().values()] == [RUNNING, WAITING]
    assert again.cancel() == 2
    assert (cluster / "cancelled").read_text().split() == ["18_0", "18_1"]


def test_jobs_are_submitted_after_their_dependencies(cluster: Path, tmp_path: Path) -> None:
    bank = Task("bank", "pipeline", ("bank",), after=("teacher",))
    student = Task("student", "pipeline", ("distill",), after=("bank",))
    launcher = slurm.Slurm(SlurmConfig(), tmp_path / "jobs")
    launcher.submit([TEACHER, bank, student])
    assert launcher.jobs == {"teacher": "17", "bank": "18", "student": "19"}
    scripts = (cluster / "scripts").read_text()
    assert "--dependency=afterok:17" in scripts
    assert "--dependency=afterok:18" in scripts


def test_a_job_that_depends_on_a_failed_job_has_failed_with_the_reason(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = slurm.Slurm(SlurmConfig(poll_s=0.1), tmp_path / "jobs")
    launcher.submit([TEACHER, *STUDENTS])
    monkeypatch.setattr(launcher, "_outcome", {"17": "exit code 1"}.get)
    found = launcher.poll()
    assert found["teacher"].note == f"job 17: exit code 1: see {launcher.log_of('teacher')}"
    assert {found[name] for name in ("a", "b")} == {Status(FAILED, NOT_RUN)}


def test_the_queue_is_read_again_for_a_second_round_of_jobs(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = slurm.Slurm(SlurmConfig(poll_s=60), tmp_path / "jobs")
    launcher.submit([TEACHER])
    monkeypatch.setattr(launcher, "_outcome", {"17": "exit code 1"}.get)
    assert launcher.poll()["teacher"].state == FAILED
    (cluster / "queue").write_text("18 RUNNING\n")
    launcher.submit([TEACHER])
    assert launcher.poll()["teacher"] == Status(RUNNING, "job 18 running")


def test_a_job_that_slurm_refuses_is_one_message(cluster: Path, tmp_path: Path) -> None:
    refused = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2; exit 1\n"
    (cluster / "sbatch").write_text(refused)
    launcher = slurm.Slurm(SlurmConfig(partition="nope"), tmp_path / "jobs")
    with pytest.raises(ConfigError, match=r"hydra.launcher.*invalid partition specified: nope"):
        launcher.submit([TEACHER])


def test_jobs_submitted_before_a_refused_one_are_recorded(cluster: Path, tmp_path: Path) -> None:
    lines = (cluster / "sbatch").read_text().splitlines()
    full = f'test $(cat {cluster}/n) = 18 && {{ echo "sbatch: error: full" >&2; exit 1; }}'
    (cluster / "sbatch").write_text("\n".join([lines[0], full, *lines[1:]]))
    with pytest.raises(ConfigError, match="full"):
        slurm.Slurm(SlurmConfig(), tmp_path / "jobs").submit([TEACHER, *STUDENTS])
    assert slurm.Slurm(SlurmConfig(), tmp_path / "jobs").jobs == {"teacher": "17"}


def test_a_job_that_left_the_queue_without_a_result_is_failed(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = slurm.Slurm(SlurmConfig(poll_s=0.1), tmp_path / "jobs")
    launcher.submit([TEACHER])
    assert launcher.poll()["teacher"].state == RUNNING  # its file may still be on its way
    monkeypatch.setattr(slurm, "_ABSENT_S", 0.0)
    launcher._looked = 0.0
    found = launcher.poll()["teacher"]
    assert found.state == FAILED
    assert found.cancelled


def test_an_interrupted_job_is_requeued(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "execute", lambda task: 75)
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "18")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    (cluster / "queue").write_text("COMPLETING\n")
    with pytest.raises(slurm.TaskFailed, match="cancelled"):
        slurm.SlurmTask(TEACHER, requeue=True, most=1)()
    assert not (cluster / "requeued").exists()
    (cluster / "queue").write_text("RUNNING\n")
    with pytest.raises(slurm.TaskFailed):
        slurm.SlurmTask(TEACHER, requeue=True, most=1)()
    assert (cluster / "requeued").read_text() == "requeue 18_1\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(slurm.TaskFailed, match="not requeued"):
        slurm.SlurmTask(TEACHER, requeue=True, most=1)()


def test_without_slurm_the_message_names_the_local_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="hydra/launcher=local"):
        slurm.Slurm(SlurmConfig(), tmp_path)
