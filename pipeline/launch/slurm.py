"""Jobs by Slurm, through submitit.

A job runs the ordinary command line, which handles Slurm's signals itself: it writes a checkpoint,
ends with 75 and is requeued. The state of a job is read from the queue and from the file that it
leaves, never from Slurm's accounting, which many sites do not have.
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
from pipeline.launch.private import check_private, make_private
from pipeline.outcome import INTERRUPTED
from pipeline.storage.atomic import write_atomic
from pipeline.storage.lease import acquire

_ABSENT_S = 30.0  # the result of a job that left the queue may appear this much later (NFS caches)
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED")


CANCELLED = "cancelled"  # in the reason of a job that was cancelled


class TaskFailed(Exception):
    """A task ended with a code other than 0; raised in the job, so that Slurm reports FAILED."""


@dataclass
class SlurmTask:
    """A task as Slurm runs it; it is pickled into the job's folder."""

    task: Task
    requeue: bool
    most: int

    def __call__(self) -> None:
        """Run the command; requeue the job if it was interrupted after a checkpoint.

        Raises:
            TaskFailed: it failed, or may not be requeued again.
        """
        code = execute(self.task)
        if code == INTERRUPTED.exit_code:
            self._requeue()
        if code != 0:
            raise TaskFailed(f"exit code {code}")

    def checkpoint(self) -> Any:
        """For a signal that arrives before the command has installed its handlers."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _requeue(self) -> None:
        before = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if not self.requeue or before >= self.most:
            raise TaskFailed(
                f"interrupted, and not requeued "
                f"(hydra.launcher.requeue={str(self.requeue).lower()}, {before} restarts of "
                f"{self.most}): run the same command to resume"
            )
        job = own_job_id(os.environ)
        query = ["squeue", "--noheader", "--job", job, "--format", "%T"]
        state = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        if state != "RUNNING":  # requeueing a cancelled job would undo the scancel
            raise TaskFailed(
                f"interrupted, {CANCELLED} (Slurm: {state}): run the same command to resume"
            )
        subprocess.run(["scontrol", "requeue", job], check=True)
        time.sleep(600)  # Slurm ends this process now
        raise TaskFailed("Slurm did not requeue it")


def own_job_id(environment: Any) -> str:
    """`17`, or `17_3` for a task of an array."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return str(environment["SLURM_JOB_ID"])


class Slurm:
    """Submits arrays and polls the queue; jobs outlive this process."""

    survives = True

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ConfigError(
                [
                    f"{CHOICE}=slurm: sbatch is not on this machine: run this on a login node, or "
                    f"use {CHOICE}=local"
                ]
            )
        self.jobs = self._load()  # name -> job id
        self.after: dict[str, tuple[str, ...]] = {}  # name -> the tasks that it depends on
        self.gone: dict[str, float] = {}
        self._looked, self._status = 0.0, dict[str, Status]()

    def submit(self, tasks: list[Task]) -> None:
        """Submit one array for all tasks with the same dependencies; tasks come after those that
        they depend on. Jobs of another command that are in the queue are followed, not submitted.
        """
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

        make_private(self.folder / "jobs")
        executor = AutoExecutor(folder=self.folder / "jobs", cluster="slurm")
        executor.update_parameters(**parameters(self.config, [self.jobs[a] for a in after]))
        config = self.config
        work = [SlurmTask(task, config.requeue, config.max_num_timeout) for task in tasks]
        try:
            with executor.batch():
                jobs = [executor.submit(one) for one in work]
        except FailedJobError as error:
            lines = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
            raise ConfigError(
                [f"{PREFIX}*: Slurm refused the job: {line}" for line in lines] or [str(error)]
            ) from error
        self.jobs |= {task.name: job.job_id for task, job in zip(tasks, jobs, strict=True)}
        self._save()  # at once: the next array may be refused

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
        """Why a job failed, empty if it did not; None if it left no result."""
        from submitit.core.utils import JobPaths, pickle_load

        path = JobPaths(self.folder / "jobs", job_id=job, task_id=0).result_pickle
        if not path.is_file():
            return None
        check_private(path.parent, path)
        state, result = pickle_load(path)
        if state == "success":
            return ""
        return str(result).strip().splitlines()[-1].removeprefix(f"{__name__}.TaskFailed: ")

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
        """scancel for the jobs that are in the queue."""
        queue = self._queue()
        queued = [job for job in self.jobs.values() if job in queue]
        if queued:
            subprocess.run(["scancel", *queued], check=True)
        return len(queued)

    def log_of(self, name: str) -> Path:
        from submitit.core.utils import JobPaths

        return Path(JobPaths(self.folder / "jobs", job_id=self.jobs[name], task_id=0).stdout)

    def _load(self) -> dict[str, str]:
        path = self.folder / "slurm.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _save(self) -> None:
        write_atomic(self.folder / "slurm.json", json.dumps(self.jobs).encode())


# Options that submitit, the requeueing or the queue's poll has. Any other goes to sbatch as it is.
_TAKEN = {
    "timeout_min",
    "mem_gb",
    "cpus_per_task",
    "array_parallelism",
    "signal_delay_s",
    "setup",
    "requeue",
    "max_num_timeout",
    "poll_s",
}


def parameters(config: SlurmConfig, after: list[str]) -> dict[str, Any]:
    """submitit's parameters of a configuration; jobs wait for those of `after` to succeed."""
    of_sbatch: dict[str, Any] = {
        key: value
        for key, value in vars(config).items()
        if key not in _TAKEN and value is not None and value is not False
    }
    of_sbatch["requeue" if config.requeue else "no-requeue"] = True
    if after:
        of_sbatch |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
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
        "slurm_additional_parameters": of_sbatch,
    }
