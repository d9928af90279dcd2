"""Slurm's commands and their answers.

A controller is away now and then: restarted, failing over, overloaded. A command then fails, hangs
or prints something else, which says nothing about the jobs: `Away`. Imports the standard library
only, because a job needs it before everything else.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

ANSWER_S = 60.0  # the longest that a command may take
SUBMIT_S = 300.0  # sbatch itself waits for minutes where the queue is full
_STOP_S = 10.0  # a command that changes something may still end when a stop is requested
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
}
_AWAY = re.compile(
    "unable to contact|timed out|connection (refused|reset)|connect failure|communication|standby|"
    "zero bytes|transport endpoint|temporarily|try again|munge|no route to host|error receiving|"
    "network is unreachable|name or service not known",
    re.I,
)
_JOB = re.compile(r"(\d[\d_+\[\]%,-]*)\s+([A-Z][A-Z_]+)(?:\s+(.*))?")


class Away(Exception):
    """Slurm gave no answer, so that nothing is known."""


class Answer(NamedTuple):
    """What a command of Slurm printed, and its exit code."""

    code: int
    out: str
    errors: str

    @property
    def is_away(self) -> bool:
        """Whether it says that the controller could not be asked."""
        return self.code != 0 and _AWAY.search(self.errors) is not None

    @property
    def reason(self) -> str:
        """The last line of what it printed."""
        lines = (self.errors.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}, without a message"


class QueuedJob(NamedTuple):
    """A job as Slurm knows it, also for some minutes after its end."""

    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


def part_of(job: str, part: int) -> str:
    """The id of a task that shares a job with others: `17_3.2`."""
    return f"{job}.{part}"


def job_of(number: str) -> str:
    """The job of an id: `17_3` of `17_3.2`."""
    return number.partition(".")[0]


def never() -> bool:
    """Nobody requests a stop."""
    return False


class Call:
    """A command of Slurm that runs. Ctrl-C in the terminal is not for it."""

    def __init__(self, *words: str, patience_s: float = ANSWER_S) -> None:
        self.words, self._patience_s = words, patience_s
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._files[0],
                stderr=self._files[1],
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise Away(f"{words[0]}: {error.strerror}") from error
        self._end = time.monotonic() + patience_s

    def answer(self, wait_s: float) -> Answer | None:
        """Its answer; None: not yet.

        Raises:
            Away: it hangs.
        """
        left = self._end - time.monotonic()
        try:
            code = self._process.wait(max(0.0, min(wait_s, left)))
        except subprocess.TimeoutExpired:
            if left > wait_s:
                return None
            self.kill()
            raise Away(f"{self.words[0]}: no answer in {self._patience_s:g} s") from None
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Answer(code, *texts)

    def kill(self) -> None:
        """End it, with the processes that it started."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def environment() -> dict[str, str]:
    """The environment for Slurm's commands: without what filters or formats their answers, and
    without the variables of a job that this process may itself run in."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONF_SERVER")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(("SQUEUE_", "SLURM_", "SCONTROL_", "SINFO_"))
    }


def ask(*words: str, patience_s: float = ANSWER_S, stop: Callable[[], bool] = never) -> Answer:
    """The answer of a command. After a request to stop it has some seconds to end.

    Raises:
        Away: it cannot be run, hangs, or could not ask the controller.
    """
    call, end = Call(*words, patience_s=patience_s), float("inf")
    while (answer := call.answer(0.2)) is None:
        if stop():
            end = min(end, time.monotonic() + _STOP_S)
        if time.monotonic() > end:
            call.kill()
            raise Away(f"{words[0]}: interrupted")
    if answer.is_away:
        raise Away(answer.reason)
    return answer


def look(*more: str) -> Call:
    """A query of this user's jobs, those that ended some minutes ago included. `more` restricts
    it."""
    form = ("--noheader", "--array", "--states=all", "--format=%i %T %r")
    return Call("squeue", *form, *(more or (f"--user={os.getuid()}",)))


def jobs_of(answer: Answer) -> dict[str, QueuedJob]:
    """The jobs in an answer to `look`, by id.

    Raises:
        Away: it is no answer.
    """
    if answer.code != 0:
        raise Away(answer.reason)
    lines = [line.strip() for line in answer.out.splitlines() if line.strip()]
    found = [match for line in lines if (match := _JOB.fullmatch(line))]
    strange = [line for line in lines if not _JOB.fullmatch(line)]
    if any("error" in line.lower() for line in strange) or (strange and not found):
        raise Away(f"squeue printed {strange[0][:100]!r}")
    if not lines and "error" in answer.errors.lower():
        raise Away(answer.reason)
    return {match[1]: QueuedJob(match[2], plain(match[3] or "")) for match in found}


def plain(reason: str) -> str:
    """A reason of a pending job without brackets; empty if there is none."""
    text = reason.strip().removeprefix("(").removesuffix(")").strip()
    return "" if text.lower() in ("none", "null", "n/a") else text


def job_of_script(script: str, stop: Callable[[], bool] = never) -> str | None:
    """The id of the job that was submitted with this script.

    Raises:
        Away: Slurm gave no answer.
    """
    form = ("--noheader", "--states=all", f"--user={os.getuid()}", "--format=%A %F %o")
    answer = ask("squeue", *form, stop=stop)
    jobs_of(answer._replace(out=""))  # whether it is an answer
    for line in answer.out.splitlines():
        _, array, command = [*line.split(None, 2), "", "", ""][:3]
        if command.startswith(script):
            return array
    return None


def cancel(ids: list[str], stop: Callable[[], bool] = never) -> str | None:
    """scancel; what it refused, if anything. Jobs that have ended meanwhile are no fault.

    Raises:
        Away: Slurm gave no answer.
    """
    refused = None
    for start in range(0, len(ids), 500):
        answer = ask("scancel", *ids[start : start + 500], stop=stop)
        lines = [line for line in answer.errors.splitlines() if line.strip()]
        faults = [line for line in lines if not re.search(r"invalid job id|already", line, re.I)]
        if answer.code != 0 and faults:
            refused = faults[0]
    return refused
