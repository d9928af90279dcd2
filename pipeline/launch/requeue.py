"""How a job of Slurm goes back into the queue after it was interrupted.

Imports the standard library only, because a job needs it before everything else.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from pipeline.launch.controller import Away, QueuedJob, ask, jobs_of
from pipeline.launch.ending import CANCELLED, LOST, Ending

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TRY_S = 2.0  # between two tries of a command
REQUEUE_S = 600.0  # how long it is tried; Slurm ends the job before, where its time is over
REFUSALS = 3  # answers, not outages, after which the job gives up


@dataclass(frozen=True)
class Requeue:
    """Whether a job may go back into the queue, and how often."""

    allowed: bool
    most: int

    def interrupted(self) -> Ending:
        """Requeue this job, as long as Slurm lets it live; how it ends where that is not done."""
        before = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if not self.allowed or before >= self.most:
            return Ending(
                1,
                f"interrupted, and not requeued "
                f"(hydra.launcher.requeue={str(self.allowed).lower()}, {before} restarts of "
                f"{self.most}): run the same command to resume",
            )
        job, end, refusals, told = own_job_id(os.environ), time.monotonic() + REQUEUE_S, 0, False
        reason = "Slurm gave no answer"
        while time.monotonic() < end and refusals < REFUSALS:
            try:
                state = own_state(job)
                if state is not None and is_cancelled(state):
                    text = f"interrupted, cancelled (Slurm: {state.state}): run the same command"
                    return Ending(1, f"{text} to resume", CANCELLED)
                answer = ask("scontrol", "requeue", job)
            except Away as away:
                reason = str(away)
                if not told:
                    print(f"requeue  {reason}: tried again while Slurm lets this job live")
                told = True
            else:
                if answer.code == 0 or "pending" in answer.errors.lower():
                    _wait_for_the_end()
                    return Ending(1, "Slurm requeued this job and did not end it", LOST)
                reason, refusals = answer.reason, refusals + 1
            time.sleep(TRY_S)
        return Ending(1, f"interrupted, and Slurm did not requeue it ({reason})", LOST)


def _wait_for_the_end() -> None:
    """Slurm ends a job that it requeues; nothing is left to be done at its signal."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    time.sleep(REQUEUE_S)


def own_state(job: str) -> QueuedJob | None:
    """What Slurm says of this job; None: nothing.

    Raises:
        Away: it gave no answer.
    """
    form = ("--noheader", "--array", "--states=all", "--format=%i %T %r", "--jobs", job)
    found = jobs_of(ask("squeue", *form))
    return found.get(job) or next(iter(found.values()), None)


def is_cancelled(job: QueuedJob) -> bool:
    """Whether the job was cancelled: to requeue it would undo that. One that is ended because its
    time is over says so."""
    return job.state != "RUNNING" and job.reason != "TimeLimit"


def own_job_id(environment: Any) -> str:
    """`17`, or `17_3` for a task of an array."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return str(environment["SLURM_JOB_ID"])
