"""Tasks that share a job of Slurm, and its GPU: `python -m pipeline.launch.packed_job FILE`.

Each is a process of its own, with its own log and its own end, so its numbers are those of a task
that has a job to itself. A signal to the job goes to all of them; when all have ended, the job goes
back into the queue if one was interrupted. Then those that are finished are not started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.launch.controller import part_of
from pipeline.launch.ending import Ending
from pipeline.launch.requeue import SIGNALS, Requeue, own_job_id

POLL_S = 0.1
INTERRUPTED = 75  # the exit code of `pipeline.outcome.INTERRUPTED`, which takes long to import


@dataclass
class PackedJob:
    """The tasks of one job: those of the numbers `tasks` in `file`."""

    file: Path
    tasks: range
    requeue: Requeue
    errors: bool  # whether standard error has a file of its own
    _processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _signal: int | None = None

    def run(self) -> int:
        """Run all tasks, and requeue the job if one was interrupted; the exit code of the first
        task that is not finished, or 0."""
        for one in SIGNALS:
            signal.signal(one, self._note)
        before = {n: end for n in self.tasks if (end := self._finished_before(n))}
        endings = dict(before)
        for number in self.tasks:
            if number not in before:
                try:
                    self._processes[number] = self._start(number)
                except OSError as error:  # no memory or no number is left for it
                    endings[number] = Ending(1, f"its process could not be started: {error}")
        self._wait()
        endings |= {n: self._ending(n, p.returncode) for n, p in self._processes.items()}
        stopped = [number for number, end in endings.items() if end.code == INTERRUPTED]
        if stopped:
            endings |= dict.fromkeys(stopped, self.requeue.interrupted())
        for number in endings.keys() - before.keys():
            endings[number].save(self._ending_file(number))
        return next((endings[n].code for n in self.tasks if endings[n].code), 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _finished_before(self, number: int) -> Ending | None:
        """How a task ended that was finished before this job was requeued."""
        file = self._ending_file(number)
        restarts, found = int(os.environ.get("SLURM_RESTART_COUNT") or 0), Ending.load(file)
        if restarts and found is not None and found.code == 0:
            return found
        file.unlink(missing_ok=True)
        return None

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        """Start the process of a task, in the process group of this one, which Slurm ends."""
        log = self.file.parent / f"{self._part(number)}.out"
        module = "pipeline.launch.packed_job"
        with log.open("ab") as out, self._errors_of(log).open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-u", "-m", module, str(self.file), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=share(os.environ, number - self.tasks.start, len(self.tasks)),
            )

    def _errors_of(self, log: Path) -> Path:
        return log.with_name(log.name.removesuffix("out") + "err") if self.errors else log

    def _wait(self) -> None:
        """Wait until all have ended, and pass a signal on to each once, also one that came before
        it was started."""
        signalled = set[int]()
        while running := {n: p for n, p in self._processes.items() if p.poll() is None}:
            if self._signal is not None:
                for number in running.keys() - signalled:
                    running[number].send_signal(self._signal)
                    signalled.add(number)
            time.sleep(POLL_S)

    def _ending(self, number: int, code: int) -> Ending:
        """How a task ended whose process ended with this code. What it wrote itself counts: a
        library may still crash when the interpreter ends."""
        if found := Ending.load(self._ending_file(number)):
            return found
        if code == INTERRUPTED or -code in SIGNALS:  # before Python could handle it
            return Ending(INTERRUPTED)
        if code < 0:
            name = signal.Signals(-code).name
            more = ": out of memory? Give more with hydra.launcher.mem_gb"
            return Ending(1, f"killed by {name}{more if name == 'SIGKILL' else ''}")
        return Ending(code, f"ended with {code}, without a result" if code else "")

    def _part(self, number: int) -> str:
        return part_of(own_job_id(os.environ), number - self.tasks.start)

    def _ending_file(self, number: int) -> Path:
        return Ending.file(self.file.parent, self._part(number))


def share(environment: Mapping[str, str], place: int, of: int) -> dict[str, str]:
    """The environment of a task with its part of the job: of several GPUs one in turn, and of the
    cores as many threads as there are for each."""
    found = dict(environment)
    gpus = [gpu for gpu in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    found.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // of)))
    return found


def run_one(task: dict[str, Any], file: Path) -> int:
    """Run one task in this process; its end is in `file`, unless it was interrupted."""
    for one in SIGNALS:
        signal.signal(one, lambda number, frame: os._exit(INTERRUPTED))  # nothing has begun
    from pipeline.launch.base import Task, execute

    ending = execute(Task.of(task))
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)  # it has ended
    if ending.code != INTERRUPTED:
        ending.save(file)
    return ending.code


def main(path: str, only: str | None = None) -> int:
    """Run all tasks of this job, from the file of its array; `only`: the number of the one that
    this process runs."""
    file = Path(path)
    text = json.loads(file.read_text())
    tasks, size = text["tasks"], text["pack"]
    first = size * int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    if only is not None:
        name = part_of(own_job_id(os.environ), int(only) - first)
        return run_one(tasks[int(only)], Ending.file(file.parent, name))
    numbers = range(first, min(first + size, len(tasks)))
    requeue = Requeue(text["requeue"], text["most"])
    return PackedJob(file, numbers, requeue, text["errors"]).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
