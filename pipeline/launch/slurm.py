"""Jobs by Slurm, through submitit.

A job runs the ordinary command line, which answers Slurm's signals itself: it commits, ends with
75, and is put back into the queue. What became of a job is read from the queue and from what the
job left behind, never from Slurm's accounting, which many sites do not have.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError
from pipeline.launch.base import (
    CHOICE,
    DONE,
    FAILED,
    NOT_RUN,
    PREFIX,
    RUNNING,
    WAITING,
    SlurmConfig,
    Status,
    Task,
    execute,
)
from pipeline.outcome import INTERRUPTED
from pipeline.storage.atomic import write_atomic
from pipeline.storage.lease import acquire

_ABSENT_S = 30.0  # a job that left the queue may show its result this much later (NFS caches)
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED")


CANCELLED = "cancelled"  # in what a job says, or its absence, that someone ended


class TaskFailed(Exception):
    """A task ended with another code than 0; raised in the job, so that Slurm says FAILED."""


@dataclass
class SlurmTask:
    """What a job runs; it is pickled into the job's folder."""

    task: Task
    requeue: bool
    most: int

    def __call__(self) -> None:
        """Run the command; back into the queue if it stopped after a commit.

        Raises:
            TaskFailed: it failed, or may go back no more.
        """
        code = execute(self.task)
        if code == INTERRUPTED.exit_code:
            self._go_back()
        if code != 0:
            raise TaskFailed(f"exit code {code}")

    def checkpoint(self) -> Any:
        """For a signal that comes before the command has taken over the signals."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _go_back(self) -> None:
        before = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if not self.requeue or before >= self.most:
            raise TaskFailed(
                f"stopped after a commit, and not put back into the queue "
                f"(hydra.launcher.requeue={str(self.requeue).lower()}, {before} restarts of "
                f"{self.most}): the same command goes on"
            )
        job = own_job_id(os.environ)
        look = ["squeue", "--noheader", "--job", job, "--format", "%T"]
        state = subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip()
        if state != "RUNNING":  # to put a cancelled job back would undo the scancel
            raise TaskFailed(
                f"stopped after a commit, {CANCELLED} (Slurm: {state}): the same command goes on"
            )
        subprocess.run(["scontrol", "requeue", job], check=True)
        time.sleep(600)  # Slurm ends this process now
        raise TaskFailed("Slurm did not put it back into the queue")


def own_job_id(environment: Any) -> str:
    """`17`, or `17_3` for a task of an array."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return str(environment["SLURM_JOB_ID"])


class Slurm:
    """Submits arrays and looks at the queue; jobs outlive this process."""

    survives = True

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ConfigError(
                [
                    f"{CHOICE}=slurm: sbatch is not on this machine: type this on a login node, or "
                    f"use {CHOICE}=local"
                ]
            )
        self.jobs = self._load()  # name -> job id
        self.after: dict[str, tuple[str, ...]] = {}  # name -> those that it waits for
        self.gone: dict[str, float] = {}
        self._looked, self._status = 0.0, dict[str, Status]()

    def submit(self, tasks: list[Task]) -> None:
        """Arrays of those that wait for the same; what an earlier command has in the queue is
        joined, also of one that submits at the same time. Tasks come after those that they wait
        for."""
        self.after = {task.name: task.after for task in tasks}
        self._looked, self._status, self.gone = 0.0, {}, {}  # of another round of workers
        with acquire(self.folder, poll_s=0.2):
            self.jobs, queue = self._load(), self._queue()
            new = [task for task in tasks if self.jobs.get(task.name) not in queue]
            for after in dict.fromkeys(task.after for task in new):
                self._array([task for task in new if task.after == after], after)

    def _array(self, tasks: list[Task], after: tuple[str, ...]) -> None:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        executor = AutoExecutor(folder=self.folder / "jobs", cluster="slurm")
        executor.update_parameters(**parameters(self.config, [self.jobs[a] for a in after]))
        config = self.config
        work = [SlurmTask(task, config.requeue, config.max_num_timeout) for task in tasks]
        try:
            with executor.batch():
                jobs = [executor.submit(one) for one in work]
        except FailedJobError as error:
            said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
            raise ConfigError(
                [f"{PREFIX}*: Slurm takes no such job: {one}" for one in said] or [str(error)]
            ) from error
        self.jobs |= {task.name: job.job_id for task, job in zip(tasks, jobs, strict=True)}
        self._save()  # now: the next array may be refused

    def poll(self) -> dict[str, Status]:
        if time.monotonic() - self._looked >= self.config.poll_s:
            queue = self._queue()
            for name in self.after:
                self._status[name] = self._one(name, queue)
            self._looked = time.monotonic()
        return dict(self._status)

    def _one(self, name: str, queue: dict[str, str]) -> Status:
        job = self.jobs[name]
        if (state := queue.get(job)) is not None:
            self.gone.pop(name, None)
            return Status(RUNNING if state in _RUNNING else WAITING, f"job {job} {state.lower()}")
        outcome = self._outcome(job)
        if outcome == "":
            return Status(DONE, f"job {job}")
        if outcome is not None:
            note = f"job {job}: {outcome}: see {self.log_of(name)}"
            return Status(FAILED, note, CANCELLED in outcome)
        if any(self._status[other].state == FAILED for other in self.after[name]):
            return Status(FAILED, NOT_RUN)
        since = self.gone.setdefault(name, time.monotonic())
        if time.monotonic() - since < _ABSENT_S:
            return Status(RUNNING, f"job {job} has left the queue")
        note = f"job {job} was {CANCELLED} or killed: see {self.log_of(name)}"
        return Status(FAILED, note, cancelled=True)

    def _outcome(self, job: str) -> str | None:
        """What a job left behind: why it failed, empty if it did not; None if it left nothing."""
        from submitit.core.utils import JobPaths, pickle_load

        path = JobPaths(self.folder / "jobs", job_id=job, task_id=0).result_pickle
        if not path.is_file():
            return None
        state, said = pickle_load(path)
        if state == "success":
            return ""
        return str(said).strip().splitlines()[-1].removeprefix(f"{__name__}.TaskFailed: ")

    def _queue(self) -> dict[str, str]:
        """The state of every job of this user in the queue."""
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"],
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split()[:2] for line in done.stdout.splitlines() if line.strip())

    def cancel(self) -> int:
        """scancel for what is in the queue."""
        queue = self._queue()
        there = [job for job in self.jobs.values() if job in queue]
        if there:
            subprocess.run(["scancel", *there], check=True)
        return len(there)

    def log_of(self, name: str) -> Path:
        from submitit.core.utils import JobPaths

        return Path(JobPaths(self.folder / "jobs", job_id=self.jobs[name], task_id=0).stdout)

    def _load(self) -> dict[str, str]:
        path = self.folder / "slurm.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _save(self) -> None:
        write_atomic(self.folder / "slurm.json", json.dumps(self.jobs).encode())


def parameters(config: SlurmConfig, after: list[str]) -> dict[str, Any]:
    """submitit's parameters of a configuration; jobs wait for those of `after` to succeed."""
    more: dict[str, Any] = {"requeue": True} if config.requeue else {"no-requeue": True}
    if after:
        more |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    texts = {
        f"slurm_{key}": value
        for key in ("partition", "account", "qos", "constraint", "gres")
        if (value := getattr(config, key)) is not None
    }
    return {
        "name": "asib",
        "timeout_min": config.timeout_min,
        "mem_gb": config.mem_gb,
        "cpus_per_task": config.cpus_per_task,
        "nodes": 1,
        "tasks_per_node": 1,
        "slurm_array_parallelism": config.array_parallelism,
        "slurm_signal_delay_s": config.signal_delay_s,
        "slurm_setup": [re.sub(r"\s+$", "", line) for line in config.setup],
        "slurm_srun_args": [f"--cpus-per-task={config.cpus_per_task}"],  # not inherited by srun
        "slurm_stderr_to_stdout": True,
        "slurm_additional_parameters": more,
        **texts,
    }
