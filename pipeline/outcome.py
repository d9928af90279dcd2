"""Outcome of a command: its exit code, and the statuses of the launch run and the stage run.

The one place for both. Whatever runs something (a verb, a multirun, a study, a worker, a stage)
lets the exception pass and asks `outcome` how its own run ends.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pkgutil import resolve_name
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from analysis import tags
from analysis.stores.address import hidden
from analysis.words import printable
from pipeline.storage.lease import LeaseLost
from trainers.errors import Interrupted, UserError

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"  # statuses of runs in MLflow
TRACEBACK_LENGTH = 4900  # MLflow stores tags of up to 5000 characters
STOPPED = "interrupted; run the same command to resume"

log = logging.getLogger("pipeline")
# What a file system answers that no program can change: one line, without a traceback.
_FILE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EMFILE, errno.ENFILE, errno.ESTALE),
}


class JobsFailed(Exception):
    """Some jobs failed; the results of the others are kept."""


class RankFailed(Exception):
    """Another process (rank) of this run ended, or its numbers are others."""


class JobsLeft(Interrupted):
    """Jobs of a cluster keep running after the command that submitted them has ended."""


class Outcome(NamedTuple):
    """How a command ends. A status of None leaves the run as it is."""

    exit_code: int
    launch: str | None
    stage: str | None  # of the stage run, where one has begun


DONE = Outcome(0, FINISHED, FINISHED)
FAILURE = Outcome(1, FAILED, FAILED)
USER_ERROR = Outcome(2, FAILED, FAILED)  # found before a stage run begins, but for damaged files
INTERRUPTED = Outcome(75, KILLED, KILLED)
LEASE_LOST = Outcome(75, KILLED, None)  # the stage run belongs to another process
JOBS_LEFT = Outcome(75, None, None)


def outcome(error: BaseException | None) -> Outcome:
    """The outcome of a command that this exception ended; None: it came to its end."""
    match error:
        case None:
            return DONE
        case JobsLeft():
            return JOBS_LEFT
        case Interrupted() | KeyboardInterrupt():
            return INTERRUPTED
        case LeaseLost():
            return LEASE_LOST
        case UserError():
            return USER_ERROR
    return FAILURE


def error_tags(error: BaseException | None) -> dict[str, str]:
    """Tags of a FAILED run: the last line of the traceback and, unless it is an error of the
    user, the traceback itself (its end where it is long). None for other outcomes."""
    found = outcome(error)
    if error is None or found.launch != FAILED:
        return {}
    text = hidden("".join(traceback.format_exception(error)))[-TRACEBACK_LENGTH:]
    return {tags.ERROR: last_line(error)} | ({"traceback": text} if found is FAILURE else {})


def print_anywhere() -> None:
    """From now on a character that the terminal or log has not is replaced, no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def exit_code_of(run: Callable[[], object]) -> int:
    """Run a command; print what ended it, and return its exit code."""
    try:
        run()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - reported, by its outcome
        return report(error)
    return DONE.exit_code


def _reader_ended(error: BaseException) -> bool:
    """Whether a broken pipe is that of standard output, and not that of a server or a worker."""
    if not isinstance(error, BrokenPipeError):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


_reasons: list[str] = []  # of the commands of this process that did not come to their end


def last_reason() -> str:
    """Why the last command of this process ended as it did, in one line; empty if nobody knows."""
    return _reasons[-1] if _reasons else ""


def reason_of(error: BaseException) -> str:
    """An exception in one line: `NonFinite: train/loss/kd is not finite at epoch 3`. A user error
    and a list of failed jobs are their message."""
    if outcome(error) is USER_ERROR or isinstance(error, JobsFailed | RankFailed):
        return "; ".join(line.strip() for line in hidden(str(error)).splitlines() if line.strip())
    return re.sub(r"^[\w.]+\.(?=\w+(:|$))", "", last_line(error))


def report(error: BaseException) -> int:
    """Print what ended a command; return the exit code. A user error is one message on standard
    error, an unexpected exception is logged with its traceback. Where the reader of the output
    ended, nothing is printed."""
    from pipeline.cli.console import (  # not before it is needed: --help starts without it
        discard_output,
        say,
    )

    if _reader_ended(error):
        discard_output()
        return FAILURE.exit_code
    found = outcome(error)
    _reasons.append(reason_of(error))
    if found is USER_ERROR:
        print(printable(str(error)), file=sys.stderr)
    elif found is LEASE_LOST:
        say(f"interrupted: {error}; another process continues the run")
    elif isinstance(error, OSError) and error.errno in _FILE_SYSTEM and error.filename:
        say(f"failed: {error.filename}: {error.strerror}; run the same command when it is mended")
    elif found is FAILURE and not isinstance(error, JobsFailed | RankFailed):
        log.error("failed", exc_info=error)
    elif isinstance(error, KeyboardInterrupt):
        say(STOPPED)
    elif str(error):
        say(str(error))
    return found.exit_code


def imported(name: str) -> Any:
    """The function `package.module:function`. Ctrl-C during the import ends the process: nothing
    has begun, and an exception in the middle of an extension's start would abort it."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(1, f"{STOPPED}\n".encode())
        os._exit(INTERRUPTED.exit_code)

    before = signal.signal(signal.SIGINT, end)
    try:
        return resolve_name(name)
    finally:
        signal.signal(signal.SIGINT, before)


def end_process(exit_code: int) -> NoReturn:
    """End the process with this exit code, also where Ctrl-C is pressed while it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exec("")  # CPython ends by the signal instead if the interrupted line was in code of a string
    sys.exit(exit_code)


def last_line(error: BaseException) -> str:
    """The last line of an exception's traceback, as in a terminal, without credentials."""
    return hidden(traceback.format_exception_only(error)[-1].strip().split("\n")[0])
