"""Jobs as processes of this machine.

A server process imports torch and MLflow once and forks a process for each job, so that a job
starts at once and can be killed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from pipeline.launch.base import (
    DONE,
    FAILED,
    HALTED,
    NOT_RUN,
    RUNNING,
    WAITING,
    Status,
    Task,
    execute,
    job_folder,
    redirect,
)
from pipeline.launch.controller import never
from pipeline.launch.ending import Ending
from pipeline.launch.options import PREFIX, LocalConfig
from pipeline.outcome import INTERRUPTED

_SERVER = multiprocessing.get_context("forkserver")
_AGAIN_S = 5.0  # between two signals to a task that is out of time
_PRELOAD = [
    "pipeline.launch.fork_server",
    "pipeline.stages.student",
    "mlflow.store.tracking.sqlalchemy_store",
    "torch._dynamo",  # imported by PyTorch's counter of operations
]


class Local:
    """Runs a number of tasks at once; they end with this process, after a checkpoint."""

    survives = False

    def __init__(self, config: LocalConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.logs = job_folder(config.submitit_folder, folder)
        self.gpus = [""] if config.gpus_per_node == 0 else visible_gpus()
        self.ends: dict[str, float] = {}  # when a running task is to be stopped
        self.late = set[str]()  # tasks that were stopped because they are out of time
        self.slots = config.jobs_parallel or max(1, len(self.gpus))
        self.threads = config.cpus_per_task or _share_of_cores(self.slots)
        self.tasks: dict[str, Task] = {}
        self.status: dict[str, Status] = {}
        self.processes: dict[str, tuple[int, ForkServerProcess]] = {}
        self.restarts: dict[str, int] = {}
        self.stopping = False

    def submit(self, tasks: list[Task], stop: Callable[[], bool] = never) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        _SERVER.set_forkserver_preload(_PRELOAD)
        for task in tasks:
            self.tasks[task.name], self.status[task.name] = task, Status()

    def poll(self) -> dict[str, Status]:
        """Collect the tasks that ended, start those that are ready."""
        for name, (_, process) in list(self.processes.items()):
            self._check_time(name, process)
            if not process.is_alive():
                process.join()
                del self.processes[name]
                self.status[name] = self._after(name, process.exitcode or 0)
        for name, task in self.tasks.items():
            if self.status[name].state == WAITING:
                self._start_if_ready(name, task)
        return dict(self.status)

    def _check_time(self, name: str, process: ForkServerProcess) -> None:
        """Ask a task that is out of time to end at a checkpoint; again after some seconds."""
        if time.monotonic() > self.ends.get(name, math.inf) and process.pid is not None:
            self.ends[name] = time.monotonic() + _AGAIN_S
            self.late.add(name)
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

    def _after(self, name: str, code: int) -> Status:
        """The status after an exit code."""
        if code == 0:
            return Status(DONE)
        if code == INTERRUPTED.exit_code and name in self.late:
            limit = f"{PREFIX}timeout_min={self.config.timeout_min}"
            return Status(FAILED, f"out of time ({limit}): run the same command to resume")
        if code == INTERRUPTED.exit_code:  # only this job was interrupted: resume it
            return (
                Status(HALTED, "at a checkpoint") if self.stopping else Status(WAITING, "to resume")
            )
        if code == -signal.SIGTERM and self.stopping:
            return Status(HALTED, "while it started")
        ending = Ending.load(self._ending_file(name))
        known = ending.reason if ending is not None and ending.code == code else ""
        how = (known or f"exit {code}") if code > 0 else f"killed by signal {-code}"
        if (
            code < 0
            and not self.stopping
            and self.restarts.get(name, 0) < self.tasks[name].restarts
        ):
            self.restarts[name] = self.restarts.get(name, 0) + 1
            return Status(WAITING, f"{how}, restarted")
        return Status(FAILED, f"{how}: see {self.log_of(name)}")

    def _start_if_ready(self, name: str, task: Task) -> None:
        before = [self.status[other].state for other in task.after]
        if FAILED in before:
            self.status[name] = Status(FAILED, NOT_RUN)
        elif self.stopping or HALTED in before:
            self.status[name] = Status(HALTED, "not started")
        elif len(self.processes) < self.slots and all(state == DONE for state in before):
            slot = min(set(range(self.slots)) - {slot for slot, _ in self.processes.values()})
            gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
            ending = self._ending_file(name)
            ending.unlink(missing_ok=True)
            process = _SERVER.Process(
                target=_child,
                args=(task, self.log_of(name), ending, gpu, self.threads, self.config),
            )
            with _ctrl_c_blocked():
                process.start()
            if self.config.timeout_min is not None:
                self.ends[name] = time.monotonic() + 60 * self.config.timeout_min
            self.processes[name] = slot, process
            why = self.status[name].note  # why it is restarted, if it is
            self.status[name] = Status(RUNNING, f"process {process.pid}  {why}".rstrip())

    def cancel(self) -> int:
        """Signal all running tasks to end after a checkpoint; no other is started."""
        self.stopping = True
        running = [p for _, p in self.processes.values() if p.is_alive() and p.pid is not None]
        for process in running:
            os.kill(process.pid, signal.SIGTERM)  # type: ignore[arg-type]
        return len(running)

    def log_of(self, name: str) -> Path:
        return self.logs / f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', name)}.log"

    def left(self) -> str:
        return ""

    def _ending_file(self, name: str) -> Path:
        return Ending.file(self.logs, self.log_of(name).stem)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block Ctrl-C while the server process starts: it is for this process, and the server must
    not receive it before it ignores it."""
    resource_tracker.ensure_running()  # started with the server, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(k) for k in range(count)]


def _share_of_cores(slots: int) -> int | None:
    """Threads of each of so many jobs that run at once; None: torch's choice. Jobs with a thread
    for every core would stand in each other's way."""
    import torch

    return None if slots == 1 else max(1, torch.get_num_threads() // slots)


def _child(
    task: Task,
    log: Path,
    ending_file: Path,
    gpu: str | None,
    threads: int | None,
    config: LocalConfig,
) -> None:
    from pipeline.launch.fork_server import restore_signals  # only in the server's processes

    restore_signals()
    redirect(log, errors=None if config.stderr_to_stdout else log.with_suffix(".err"))
    if threads is not None:
        import torch  # the server has it

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    ending = execute(task, [] if gpu is None else [("CUDA_VISIBLE_DEVICES", gpu)])
    if ending.reason:
        ending.save(ending_file)
    sys.exit(ending.code)
