"""Follow jobs to their end: a live table on a terminal, one line per event in a log file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from pipeline.cli.console import out, say
from pipeline.launch.base import DONE, ENDED, RUNNING, WAITING, Launcher, Status
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
    before: dict[str, Status] = {}
    signalled: float | None = None  # when the jobs were last signalled to stop
    with Live(console=out, refresh_per_second=2, transient=True) as live:
        shown = 0.0
        while True:
            if session.stop():  # before anything is started
                if launcher.survives:
                    raise _left(launcher.poll())
                # Again after a while: a job that is starting up misses the signal.
                if signalled is None or time.monotonic() - signalled > SIGNAL_S:
                    signalled = time.monotonic()
                    launcher.cancel()
            status = launcher.poll()
            for name, one in status.items():
                if one != before.get(name):
                    _event(name, one, launcher)
            before = status
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


def _left(status: dict[str, Status]) -> JobsLeft:
    count = sum(one.state not in ENDED for one in status.values())
    return JobsLeft(
        f"{count} jobs keep running: run the same command to follow them, with --cancel to end\n"
        "them; squeue --me lists them"
    )


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
