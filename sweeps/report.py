"""What a person sees of a study: a table while it runs, the best trials at the end."""

from __future__ import annotations

import shlex
import time
from collections import Counter

from optuna.trial import FrozenTrial, Trial, TrialState
from rich.table import Table

from pipeline.console import say
from pipeline.planning import duration
from sweeps.board import Board, point_of
from sweeps.runs import VALUES, TrialDestination, metrics_of
from sweeps.storage import where
from sweeps.study import spoken

BEST = 5
WORDS = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def counted(board: Board) -> str:
    """`12 finished, 2 running`."""
    counts = Counter(WORDS[trial.state] for trial in board.trials().values())
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "nothing yet"


def best(board: Board) -> Table:
    """The best trials with their seeds' spread."""
    return _table(f"study {board.study.key}: {counted(board)}", _ranked(board)[:BEST], board)


def live(board: Board) -> Table:
    """The best trials so far and those that are under way."""
    running = [p for p in board.trials().items() if p[1].state == TrialState.RUNNING]
    return _table(counted(board), [*_ranked(board)[:BEST], *running], board)


def next_commands(board: Board, typed: tuple[str, ...], destination: TrialDestination) -> list[str]:
    """What to type to go on."""
    study, ranked = board.study, _ranked(board)
    begun, drawn = len(board.begun()), study.sampler != "grid"
    unfinished = len(board.ended()) < max(study.wanted, begun)
    trials = max(study.wanted, begun) * (1 if unfinished else 2)
    more = f" trials={trials}" if drawn else ""
    what = "more trials:" if drawn and not unfinished else "again:      "
    lines = [f"{what}  python -m sweeps {study.name}{more} {shlex.join(typed)}".rstrip()]
    if ranked:
        overrides = study.overrides(point_of(ranked[0][1]), study.seeds[0])[:-1]
        again = f"python -m pipeline distill -m {shlex.join(overrides)} seed=0,1,2,3,4"
        lines.append(f"the best:     {again}")
        if ties := sum(trial.value == ranked[0][1].value for _, trial in ranked) - 1:
            lines.append(
                f"note:         {ties + 1} trials tie for the best value: no difference seen"
            )
    lines.append(f"look with:    mlflow ui; optuna-dashboard {where(board.folder)}")
    lines.append(f"experiment:   {destination.experiment}")
    return lines


class Events:
    """One line for every trial that begins or ends."""

    EVERY_S = 1.0

    def __init__(self, board: Board) -> None:
        self.board, self.looked = board, 0.0
        self.told = {label: trial.state for label, trial in board.trials().items()}

    def tell(self) -> None:
        """Say what is new, at most once a second."""
        if time.monotonic() - self.looked < self.EVERY_S:
            return
        self.looked = time.monotonic()
        for label, trial in self.board.trials().items():
            if trial.state != self.told.get(label) and trial.state != TrialState.WAITING:
                self.told[label] = trial.state
                value = "" if trial.value is None else f"  val {100 * trial.value:.2f} %"
                say(
                    f"{time.strftime('%H:%M:%S')}  {WORDS[trial.state]:8}  trial {label}  "
                    f"{shown(trial)}{value}"
                )


def shown(trial: FrozenTrial | Trial) -> str:
    """A trial's point in a few words."""
    return " ".join(f"{key}={_short(value)}" for key, value in point_of(trial).items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else spoken(value)


def _ranked(board: Board) -> list[tuple[str, FrozenTrial]]:
    """Finished trials, the best validation accuracy first."""
    found = [p for p in board.trials().items() if p[1].state == TrialState.COMPLETE]
    return sorted(found, key=lambda pair: -(pair[1].value or 0.0))


def _table(title: str, trials: list[tuple[str, FrozenTrial]], board: Board) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for head in ("trial", "state", "sets", "val %", "sd", "n", "test %", "time"):
        table.add_column(
            head, justify="right" if head in ("val %", "sd", "n", "test %") else "left"
        )
    for label, trial in trials:
        values = trial.user_attrs.get(VALUES, {})
        metrics = metrics_of(values)
        numbers = [
            f"{100 * metrics[key]:.2f}" if key in metrics else ""
            for key in ("val/best_top1", "val/best_top1_sd", "test/top1")
        ]
        seconds = metrics.get("cost/run_seconds")
        table.add_row(
            label, WORDS[trial.state], shown(trial), numbers[0], numbers[1],
            f"{len(values)}/{len(board.study.seeds)}", numbers[2],
            "" if seconds is None else duration(seconds),
        )  # fmt: skip
    return table
