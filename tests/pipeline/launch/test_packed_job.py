"""Tasks that share a job of Slurm: their ends, their logs, and how the job goes back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from pipeline.launch.base import Task
from pipeline.launch.ending import CANCELLED, Ending
from pipeline.launch.packed_job import share
from tests.pipeline.launch.fake_slurm import FakeSlurm

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import atexit, os, signal, sys, time
from pathlib import Path
def main(arguments):
    how, folder = arguments[0], Path(arguments[1])
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "late":
        atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    if how == "fails":
        raise ArithmeticError("no number")
    if how == "patient":
        heard = []
        signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
        (folder / f"ready-{os.getpid()}").touch()
        while not heard and not (folder / "go").exists():
            time.sleep(0.02)
        if heard:
            return 75
    print(how, "has", os.environ["OMP_NUM_THREADS"], "threads")
    with (folder / "log").open("a") as log:
        log.write(f"{how}\\n")
    return 0
"""


class Job:
    """A job of these tasks, as Slurm starts it."""

    def __init__(self, folder: Path, *hows: str, size: int = 4, number: int | None = None) -> None:
        (folder / "packed_program").mkdir()
        (folder / "packed_program" / "__init__.py").touch()
        (folder / "packed_program" / "__main__.py").write_text(PROGRAM)
        self.folder, self.jobs, self.hows = folder, folder / "jobs", hows
        self.jobs.mkdir()
        tasks = [Task(h, "packed_program", (h, str(folder))) for h in hows]
        text = {"tasks": [asdict(t) for t in tasks], "requeue": True, "most": 100}
        file = self.jobs / "a.json"
        file.write_text(json.dumps(text | {"pack": size, "errors": False}))
        self.words = [sys.executable, "-m", "pipeline.launch.packed_job", str(file)]
        self.environment = dict(os.environ) | {"PYTHONPATH": f"{folder}:{ROOT}"}
        self.environment.pop("OMP_NUM_THREADS", None)
        self.name = "17" if number is None else f"17_{number}"
        array = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": str(number)}
        self.environment |= {"SLURM_JOB_ID": "17"} if number is None else array

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.words, env=self.environment | environment)

    def run(self, **environment: str) -> int:
        return self.start(**environment).wait(120)

    def ending(self, part: int) -> Ending | None:
        return Ending.load(Ending.file(self.jobs, f"{self.name}.{part}"))

    def ran(self) -> list[str]:
        log = self.folder / "log"
        return sorted(log.read_text().split()) if log.exists() else []

    def begun(self, patient: int, ended: int) -> None:
        """Wait until so many patient tasks listen, and the one of a number has ended."""
        end = time.monotonic() + 60
        while len(list(self.folder.glob("ready-*"))) < patient or self.ending(ended) is None:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_each_task_has_its_own_end_and_log(tmp_path: Path) -> None:
    job = Job(tmp_path, "one", "fails", "killed", "two")
    assert job.run() == 1
    assert job.ran() == ["one", "two"]
    assert [job.ending(k) for k in range(4)] == [
        Ending(0),
        Ending(1, "ArithmeticError: no number"),
        Ending(1, "killed by SIGKILL: out of memory? Give more with hydra.launcher.mem_gb"),
        Ending(0),
    ]
    assert (job.jobs / "17.0.out").read_text().startswith("one has")
    assert "ArithmeticError: no number" in (job.jobs / "17.1.out").read_text()


def test_a_task_that_cannot_be_started_has_failed_and_the_others_run(tmp_path: Path) -> None:
    job = Job(tmp_path, "one", "lost", "two")
    (job.jobs / "17.1.out").mkdir()
    assert job.run() == 1
    assert job.ran() == ["one", "two"]
    lost = job.ending(1)
    assert lost is not None
    assert lost.code == 1
    assert lost.reason.startswith("its process could not be started: [Errno 21] Is a directory")


def test_a_task_that_crashes_after_its_end_has_ended_well(tmp_path: Path) -> None:
    """A library that dies with the interpreter takes no result with it."""
    job = Job(tmp_path, "late")
    assert job.run() == 0
    assert job.ending(0) == Ending(0)


def test_a_job_of_an_array_has_its_part_of_the_tasks(tmp_path: Path) -> None:
    job = Job(tmp_path, "a", "b", "c", "d", "e", size=2, number=2)
    assert job.run() == 0
    assert job.ran() == ["e"]
    assert job.ending(0) == Ending(0)


def test_the_job_is_requeued_once_after_all_have_ended(fake: FakeSlurm, tmp_path: Path) -> None:
    """And runs what was not finished: that which failed as well, as a requeue by hand is meant."""
    fake.queue("17 RUNNING None")
    job = Job(tmp_path, "patient", "one", "patient", "fails")
    process = job.start()
    job.begun(2, ended=1)
    process.send_signal(signal.SIGUSR2)
    requeued_by = time.monotonic() + 60
    while fake.read("requeued") == "" and time.monotonic() < requeued_by:
        time.sleep(0.05)
    assert fake.read("requeued") == "requeue 17\n"
    process.kill()  # as Slurm does
    process.wait()
    assert [job.ending(k) for k in (0, 1, 2)] == [None, Ending(0), None]
    (tmp_path / "go").touch()
    assert job.run(SLURM_RESTART_COUNT="1") == 1
    assert job.ran() == ["one", "patient", "patient"]
    assert [job.ending(k).code for k in range(4)] == [0, 0, 0, 1]


def test_a_new_job_of_the_same_number_runs_all(tmp_path: Path) -> None:
    """Slurm may give a number again, so the file of a finished task may be an old one."""
    job = Job(tmp_path, "one", "two")
    for part in (0, 1):
        Ending(0).save(Ending.file(job.jobs, f"17.{part}"))
    assert job.run() == 0
    assert job.ran() == ["one", "two"]


def test_cancelled_tasks_say_so_and_finished_ones_stay(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.queue("17 CANCELLED None")
    job = Job(tmp_path, "patient", "one")
    process = job.start()
    job.begun(1, ended=1)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 1
    assert job.ending(0).how == CANCELLED
    assert job.ending(1) == Ending(0)
    assert fake.read("requeued") == ""


def test_a_signal_at_the_start_reaches_every_task(fake: FakeSlurm, tmp_path: Path) -> None:
    """Before the tasks, or Python itself, can handle it."""
    fake.queue("17 CANCELLED None")
    job = Job(tmp_path, "patient", "patient", "patient")
    process = job.start()
    timer = threading.Timer(0.3, lambda: process.send_signal(signal.SIGUSR2))
    timer.start()
    code = process.wait(60)
    timer.join()
    assert code in (1, -signal.SIGUSR2)  # the second: before the job itself could handle it
    if code == 1:
        assert {job.ending(k).how for k in range(3)} == {CANCELLED}


def test_tasks_share_gpus_and_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    seen = [share({"CUDA_VISIBLE_DEVICES": "3,5"}, k, 3) for k in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen] == ["3", "5", "3"]
    assert {one["OMP_NUM_THREADS"] for one in seen} == {str(max(1, cores // 3))}
    assert share({"CUDA_VISIBLE_DEVICES": "3"}, 1, 2)["CUDA_VISIBLE_DEVICES"] == "3"
    assert share({"OMP_NUM_THREADS": "7"}, 0, 2)["OMP_NUM_THREADS"] == "7"
