"""Follow jobs to their end: a live table on a terminal, one line per event in a log file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from pipeline.cli.console import out, say
from pipeline.config import ConfigError
from pipeline.launch.base import DONE, ENDED, FAILED, NOT_RUN, RUNNING, WAITING, Launcher, Status
from pipeline.outcome import JobsLeft
from pipeline.session import Session
from trainers.errors import Interrupted

LOOK_S = 0.1
SHOW_S = 1.0
SIGNAL_S = 1.0
_ROWS = 20  # of the live table: it must fit on one screen


def follow(
    launcher: Launcher,
    session: Session,
    above: Callable[[], RenderableType | None] = lambda: None,
    tell: Callable[[], None] = lambda: None,
) -> dict[str, Status]:
    """Wait until every job has ended; return the last status of each.

    `above` is shown over the table of jobs on a terminal; `tell` is called after every poll, to
    print what is new.

    Raises:
        Interrupted: a stop was requested; the jobs of this machine ended after a checkpoint.
        JobsLeft: a stop was requested; the jobs of a cluster keep running.
    """
    shown_before: dict[str, list[Status]] = {}  # of each job, since its state changed
    signalled: float | None = None  # when the jobs were last signalled to stop
    with Live(console=out, refresh_per_second=2, transient=True) as live:
        shown = 0.0
        while True:
            if session.stop():  # before anything is started
                if launcher.survives:
                    raise left_alone(launcher)
                # Again after a while: a job that is starting up misses the signal.
                if signalled is None or time.monotonic() - signalled > SIGNAL_S:
                    signalled = time.monotonic()
                    launcher.cancel()
            status = launcher.poll()
            for name, one in status.items():
                events = shown_before.setdefault(name, [])
                if events and events[-1].state != one.state:
                    events.clear()
                if one not in events:  # the reasons of a waiting job come and go
                    events.append(one)
                    _event(name, one, launcher)
            tell()
            if status and all(one.state in ENDED for one in status.values()):
                break
            if out.is_terminal and time.monotonic() - shown > SHOW_S:
                shown = time.monotonic()
                parts = [part for part in (above(), _table(status)) if part is not None]
                live.update(Group(*parts))
            time.sleep(LOOK_S)
    if signalled is not None:
        raise Interrupted("interrupted; every job has a checkpoint: run the same command to resume")
    return status


def left_alone(launcher: Launcher) -> Interrupted:
    """How a command ends whose jobs survive it."""
    if left := launcher.left():
        return JobsLeft(
            f"{left}: run the same command to follow them, with --cancel to end\n"
            "them; squeue --me lists them"
        )
    return Interrupted("interrupted; no job is left in the queue: run the same command again")


@contextmanager
def leaving_jobs(launcher: Launcher) -> Iterator[None]:
    """While jobs are submitted and followed: a request to stop leaves those of a cluster alone.

    Raises:
        JobsLeft: a stop was requested, or Slurm has not answered for long, and jobs are left.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        left = left_alone(launcher) if launcher.survives else None
        if isinstance(left, JobsLeft) and not isinstance(stopped, JobsLeft):
            raise left from stopped
        raise


def check_refused(status: dict[str, Status]) -> None:
    """
    Raises:
        ConfigError: no job failed for another reason than that Slurm can never start it.
    """
    failed = [one for one in status.values() if one.state == FAILED]
    refused = [one.note for one in failed if one.refused]
    if refused and all(one.refused or one.note == NOT_RUN for one in failed):
        raise ConfigError(list(dict.fromkeys(refused)))


def _event(name: str, one: Status, launcher: Launcher) -> None:
    quiet = one.state == WAITING and not one.note  # not started yet
    if quiet or (out.is_terminal and one.state not in ENDED):
        return
    note = one.note or (str(launcher.log_of(name)) if one.state == RUNNING else "")
    say(f"{time.strftime('%H:%M:%S')}  {one.state:8}  {name}  {note}".rstrip())


def _table(status: dict[str, Status]) -> Table:
    """The number of jobs by state, and the jobs that are not finished."""
    counts = Counter(one.state for one in status.values())
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    table = Table(box=None, pad_edge=False, title=f"jobs: {counted}", title_justify="left")
    for head in ("job", "state", "note"):
        table.add_column(head)
    lively = [(name, one) for name, one in status.items() if one.state != DONE]
    order = sorted(lively, key=lambda pair: pair[1].state != RUNNING)
    for name, one in order[:_ROWS]:
        table.add_row(name, one.state, one.note)
    return table
