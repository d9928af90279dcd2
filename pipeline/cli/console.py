"""Progress of a stage: a bar on a terminal, a line per epoch in a log file."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from analysis.words import printable
from trainers import metrics
from trainers.health import WARNINGS

if TYPE_CHECKING:
    from trainers.loop import Epoch

COLUMNS = 100  # of a log file or a pipe, which have no width


def _width() -> int | None:
    """The width of a log file or pipe; None: that of the terminal, or of COLUMNS."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else COLUMNS


def discard_output() -> None:
    """From now on standard output goes nowhere: its reader has ended, as in `… | head`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Plain(Console):
    """A console on which names of others cannot write control sequences, and whose reader may
    end (`… | head`): the run continues without it."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        discard_output()


out = _Plain(highlight=False, soft_wrap=True, width=_width())


def say(text: str, style: str | None = None) -> None:
    """Print one message to the terminal or the log; a style has an effect on a terminal only."""
    out.print(text, markup=False, style=style)
    sys.stdout.flush()


def epoch_line(name: str, epoch: Epoch, total: int) -> str:
    """`distill-L3-digits-s0  epoch 12/112  stage 1 A  loss 0.412  …`, under 100 columns."""
    m = epoch.metrics
    parts = [f"{name}  {epoch.index + 1}/{total} {epoch.stage}{epoch.step}"]
    parts.append(f"loss {m[metrics.LOSS_TOTAL]:.3f}")
    for label, key in (("val", metrics.VAL_TOP1), ("synergy", metrics.SYNERGY_TOP1)):
        if key in m:
            parts.append(f"{label} {100 * m[key]:.2f} %")
    if metrics.GATE in m:
        parts.append("gate open" if m[metrics.GATE] else "gate closed")
    parts.append(f"{m[metrics.IMAGES_PER_SECOND]:.0f} img/s")
    return "  ".join(parts)


def warn(name: str, epoch: int | None, warning: str, images: int) -> None:
    """Print a health warning of a run with so many validation images, in one line; without an epoch
    it is of the whole run."""
    text, at = WARNINGS[warning].advice, "" if epoch is None else f"  epoch {epoch + 1}"
    text = text.replace(metrics.VAL_IMAGES, f"{metrics.VAL_IMAGES} ({images})")
    say(f"warning  {name}{at}  {metrics.HEALTH}{warning}: {text}", "yellow")


class StageProgress:
    """Shows the epochs of one stage."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total = name, total
        self._last_line = 0.0
        self._bar: Progress | None = None
        if out.is_terminal:
            columns = (BarColumn(20), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=out, transient=True)
            self._task = self._bar.add_task(name, total=total, completed=done)

    def __enter__(self) -> StageProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def epoch(self, epoch: Epoch) -> None:
        line = epoch_line(self.name, epoch, self.total)
        if self._bar is None:
            say(f"{time.strftime('%H:%M:%S')}  {line}")
        else:
            self._bar.update(self._task, completed=epoch.index + 1, description=line)
