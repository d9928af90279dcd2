"""How a job of Slurm ended: by the file that it left, by the queue, by its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pipeline.launch.controller import QueuedJob, job_of
from pipeline.launch.ending import CANCELLED, LOST, Ending
from pipeline.launch.options import PREFIX, SlurmConfig
from pipeline.launch.reasons import options_as_given

_LINES = 3  # of a log, in a message
_CHARACTERS = 300
_TAIL = 8192  # bytes of a log that are read
# Ends that are not the job's fault: it is submitted again.
_LOST = {
    "TIMEOUT": "out of time",
    "PREEMPTED": "preempted and not requeued",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "REVOKED": "revoked by Slurm",
}
_END_IN_LOG = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))?")
_STATE_IN_LOG = {
    None: "CANCELLED",
    "TIME LIMIT": "TIMEOUT",
    "PREEMPTION": "PREEMPTED",
    "NODE FAILURE": "NODE_FAIL",
}


class Evidence(NamedTuple):
    """How a job ended, as far as it is known."""

    code: int
    reason: str
    how: str  # cancelled | lost | empty
    certain: bool  # False: a file of the job may still appear
    state: str  # what the queue says; empty: nothing


def end_of(folder: Path, job: str, queued: QueuedJob | None, config: SlurmConfig) -> Evidence:
    """How a job ended that is no longer in the queue."""
    file, state = Ending.load(Ending.file(folder, job)), queued.state if queued else ""
    if file is not None and not (file.how == CANCELLED and state in _LOST):
        return Evidence(file.code, file.reason, file.how, True, state)
    # Of a task that shares a job also the job's own log: Slurm and srun write there.
    logs = [f"{name}.{end}" for name in dict.fromkeys((job, job_of(job))) for end in ("out", "err")]
    lines = [line for log in logs for line in _tail(folder / log)]
    found = state or _state_in(lines) or ""
    if found in _LOST:
        more = f" ({PREFIX}timeout_min={config.timeout_min})" if found == "TIMEOUT" else ""
        return Evidence(1, _LOST[found] + more, LOST, file is not None, state)
    if found == "CANCELLED":
        return Evidence(1, "cancelled", CANCELLED, False, state)
    if found == "OUT_OF_MEMORY" or any(re.search("oom.?kill", line, re.I) for line in lines):
        given = options_as_given(("mem_gb",), config)
        reason = f"out of memory: give more than {given}"
        return Evidence(1, reason, "", False, state)
    how = f"{found.lower().replace('_', ' ') or 'gone'}, without a result"
    return Evidence(1, f"{how}{_quoted(lines)}", "", False, state)


def _tail(log: Path) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-20:]


def _state_in(lines: list[str]) -> str | None:
    """What Slurm wrote at the end of a log when it ended the job."""
    for line in reversed(lines):
        if match := _END_IN_LOG.search(line):
            return _STATE_IN_LOG.get((match[1] or "").strip() or None)
    return None


def _quoted(lines: list[str]) -> str:
    text = " | ".join(lines[-_LINES:])
    return f"; its log ends with: {text[-_CHARACTERS:]}" if text else "; its log is empty"
