"""A real Slurm whose controller is away for a while, and jobs that cannot start or run out of time:
nothing is lost, and nothing is submitted twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_runs
from pipeline.launch import slurm
from pipeline.launch.base import DONE, RUNNING, WAITING, Status, Task
from pipeline.launch.options import SlurmConfig
from pipeline.launch.slurm import Slurm
from tests.end_to_end import command
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, SLURM, Start, ended

pytestmark = pytest.mark.slurm

Make = Callable[..., Slurm]


@pytest.fixture
def make(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A launcher on this cluster."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    small = {"gres": None, "mem_gb": 1, "poll_s": 0.5, "timeout_min": 20}
    return lambda **options: Slurm(SlurmConfig(**small | options), tmp_path / "jobs")


def patient(folder: Path, count: int = 1, *more: str) -> list[Task]:
    return [Task(f"t{k}", "tests.slurm.patient", (str(folder), *more)) for k in range(count)]


def begun(folder: Path) -> int:
    return len(list(folder.glob("begun-*")))


def reached(cluster: Cluster, one: Slurm, state: str, seconds: float = 150) -> dict[str, Status]:
    cluster.wait(lambda: {s.state for s in one.poll().values()} == {state}, seconds, state)
    return one.poll()


def polled(one: Slurm, seconds: float) -> set[str]:
    """Every state that a poll gave in this time."""
    found, end = set[str](), time.monotonic() + seconds
    while time.monotonic() < end:
        found |= {status.state for status in one.poll().values()}
        time.sleep(0.2)
    return found


@pytest.mark.thorough
def test_jobs_run_on_and_requeue_themselves_while_the_controller_is_stopped(
    cluster: Cluster, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make()
    one.submit(patient(tmp_path))
    cluster.wait(lambda: begun(tmp_path) == 1, 150, "task that has begun")
    reached(cluster, one, RUNNING)
    with cluster.controller_stopped():
        cluster.signal_job(one.jobs["t0"], signal.SIGUSR2)
        assert polled(one, 15) == {RUNNING}
    assert capsys.readouterr().out.count("Slurm gives no answer") == 1
    cluster.wait(lambda: one.poll() and begun(tmp_path) == 2, 150, "task that has begun again")
    (tmp_path / "go").touch()
    reached(cluster, one, DONE)
    assert len(set(cluster.finished()) & {one.jobs["t0"]}) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("away", ["controller_stopped", "controller_dead"])
def test_what_is_submitted_while_the_controller_is_away_is_submitted_once(
    cluster: Cluster, make: Make, tmp_path: Path, away: str
) -> None:
    """A stopped controller takes the submission, answers too late, and submits it all the same."""
    before = len(_records(cluster))
    (tmp_path / "go").touch()
    one = make(poll_s=0.1)
    one.submit([])
    one.tasks = {task.name: task for task in patient(tmp_path)}
    one.unsent, queue = dict.fromkeys(one.tasks, ""), one._queue()  # an answer before it goes away
    with getattr(cluster, away)():
        with pytest.raises(slurm.Away):
            one._send(queue)
        assert one.jobs == {}
        assert polled(one, 3) <= {WAITING}
    reached(cluster, one, DONE)
    # A controller that was killed may give a number again, and writes its records somewhat later.
    jobs = len(set(one.jobs.values()))
    cluster.wait(lambda: len(_records(cluster)) >= before + jobs, 60, "a finished job")
    assert len(_records(cluster)) == before + jobs


def _records(cluster: Cluster) -> list[str]:
    """A line for every job that ended."""
    path = cluster.base / "finished.txt"
    return path.read_text().splitlines() if path.is_file() else []


@pytest.mark.thorough
def test_a_job_that_can_never_start_is_cancelled_with_the_reason(
    cluster: Cluster, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_STUCK_S", 1.0)
    cluster.command("scontrol", "update", "PartitionName=urgent", "MaxTime=5")
    try:
        one = make(partition="urgent")
        one.submit(patient(tmp_path))
        cluster.wait(lambda: one.poll()["t0"].refused, 30, "job that is given up")
    finally:
        cluster.command("scontrol", "update", "PartitionName=urgent", "MaxTime=UNLIMITED")
    note = one.poll()["t0"].note
    assert "PartitionTimeLimit" in note
    assert "hydra.launcher.timeout_min=20" in note
    assert "urgent up to 5:00" in note
    number = one.jobs["t0"]
    cluster.wait(lambda: number not in " ".join(cluster.states()).split(), 30, "cancelled job")


@pytest.mark.thorough
def test_more_jobs_than_an_array_may_have(cluster: Cluster, make: Make, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    one = make()
    one.submit(patient(tmp_path, 6))
    assert len({job.partition("_")[0] for job in one.jobs.values()}) == 2  # MaxArraySize=5
    reached(cluster, one, DONE, 300)


@pytest.mark.thorough
def test_a_job_killed_by_scancel_is_cancelled_and_one_that_fails_is_not(
    cluster: Cluster, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_ABSENT_S", 2.0)
    one = make(setup=["echo no such module", "exit 3"])
    one.submit(patient(tmp_path))
    cluster.wait(lambda: one.poll()["t0"].state == "failed", 60, "failed job")
    assert not one.poll()["t0"].cancelled
    assert "its log ends with: no such module" in one.poll()["t0"].note
    other = make()
    other.submit(patient(tmp_path))
    cluster.wait(lambda: begun(tmp_path) == 1, 150, "task that has begun")
    cluster.command("scancel", other.jobs["t0"])
    cluster.wait(lambda: other.poll()["t0"].cancelled, 60, "cancelled job")


@pytest.mark.by_hand
def test_a_job_out_of_time_that_got_no_warning_goes_back_into_the_queue(
    cluster: Cluster, make: Make, tmp_path: Path
) -> None:
    """A process that no signal reaches, until it is killed. Limits are whole minutes."""
    one = make(timeout_min=1, signal_delay_s=1)
    one.submit(patient(tmp_path, 1, "deaf"))
    cluster.wait(lambda: begun(tmp_path) == 1, 150, "task that has begun")
    first = one.jobs["t0"]
    cluster.wait(lambda: one.poll() and one.jobs["t0"] != first, 300, "job submitted again")
    (tmp_path / "go").touch()
    reached(cluster, one, DONE)


@pytest.mark.thorough
def test_ctrl_c_leaves_the_launch_running_and_its_jobs_alone(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    """Ctrl-C of a terminal reaches every process of the command, Slurm's own commands too."""
    sweep = ("pipeline", "distill", "-m", "cfg=CE", "seed=0,1", *command.TINY[:4], *SLURM)
    uri = f"sqlite:///{clean}/mlflow.db"

    def launches() -> list[str]:
        runs = load_runs(uri, "asib")
        return list(runs[runs[f"tags.{tags.STAGE}"] == "launch"]["status"])

    busy = cluster.command("sbatch", "--parsable", "-N2", "--exclusive", "--wrap", "sleep 600")
    first = start(*sweep, start_new_session=True)
    cluster.wait(lambda: len(cluster.states()) >= 3, 150, "waiting jobs")
    time.sleep(2)
    os.killpg(first.pid, signal.SIGINT)
    assert "2 jobs keep running" in ended(first, 75)
    assert launches() == ["RUNNING"]
    assert sum(state.endswith("PENDING asib") for state in cluster.states()) == 2
    cluster.command("scancel", busy.strip())
    ended(start(*sweep))
    assert launches() == ["FINISHED"]
    assert len(command.results(clean)) == 2
