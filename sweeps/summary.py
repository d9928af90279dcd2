"""Reports of a study: a live table of trials; the results and the next commands at the end."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from shutil import which

from optuna.trial import FrozenTrial, Trial, TrialState
from rich.table import Table

from pipeline.cli.console import say
from pipeline.stages.plan import Setting, duration
from pipeline.tracking.view import experiment_words, view
from sweeps.storage import where
from sweeps.study import Params, Study, text_of
from sweeps.tracking import VALUES, NestedTarget, metrics_of
from sweeps.trials import TrialStore, params_of

MOST = 20  # finished trials in the final table
MOST_LIVE = 12  # in the live table, which fits one screen
MOST_LABELS = 8
_BETA = "method.ib_beta"
_LADDERS = ("ladder", "proof/")  # studies whose report is the ladder, by the start of their name
WORDS = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def counted(trial_store: TrialStore) -> str:
    """`trials: 12 finished, 2 running`."""
    counts = Counter(_state(trial_store, *pair) for pair in trial_store.trials().items())
    found = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return f"trials: {found or 'none yet'}"


def results(trial_store: TrialStore) -> Table:
    """Table of finished trials with their standard deviation over seeds."""
    return _table(
        f"study {trial_store.study.key}, {counted(trial_store)}",
        _finished(trial_store),
        MOST,
        [],
        trial_store,
    )


def live(trial_store: TrialStore) -> Table:
    """Table of some finished trials and of those that run."""
    running = [p for p in trial_store.trials().items() if p[1].state == TrialState.RUNNING]
    return _table(counted(trial_store), _finished(trial_store), MOST_LIVE, running, trial_store)


def next_commands(
    trial_store: TrialStore, given: tuple[str, ...], target: NestedTarget
) -> list[str]:
    """The commands that continue or analyse the study, with a note on what its values allow."""
    study, finished = trial_store.study, _finished(trial_store)
    lines = [_continuing(trial_store, given)]
    if finished:
        lines.append(f"the report:   {_report(study, target)}")
    if study.selects and finished and not _all_equal(finished):
        overrides = study.overrides(params_of(finished[0][1]), study.seeds[0])[:-1]
        seeds = ",".join(map(str, study.seeds))
        again = f"python -m pipeline distill -m {shlex.join(overrides)} seed={seeds}"
        lines.append(f"the best:     {again}")
        if tied := [k for k, t in finished[1:] if t.value == finished[0][1].value]:
            lines.append(f"tied with it: trial {', '.join(tied[:MOST_LABELS])}")
        if _BETA in study.distributions:
            lines.append(
                "which to use: the report selects by a rule of its own (one standard error)"
            )
    if note := _note(study, finished):
        lines.append(f"note:         {note}")
    dashboard = (
        f"; optuna-dashboard {where(trial_store.folder)}" if which("optuna-dashboard") else ""
    )
    lines.append(f"look with:    {view(target)}{dashboard}")
    lines.append(f"experiment:   {target.experiment}")
    return lines


def _continuing(trial_store: TrialStore, given: tuple[str, ...]) -> str:
    study, begun = trial_store.study, len(trial_store.begun())
    sampled = study.sampler != "grid"
    unfinished = len(trial_store.ended()) < max(study.wanted, begun)
    trials = max(study.wanted, begun) * (1 if unfinished else 2)
    more = f" trials={trials}" if sampled else ""
    what = "more trials:" if sampled and not unfinished else "again:      "
    return f"{what}  python -m sweeps {study.name}{more} {shlex.join(given)}".rstrip()


def _report(study: Study, target: NestedTarget) -> str:
    """The command that analyses a study."""
    named = experiment_words(target)
    return shlex.join(["python", "-m", "pipeline", "analyze", *named, f"what={_topic(study)}"])


def _topic(study: Study) -> str:
    """The analysis of what a study varies."""
    if study.name == "methods":
        return "methods"
    if "overlap" in study.distributions:
        return "overlap"
    if study.distributions.keys() == {_BETA}:
        return "beta"
    ladder = study.name.startswith(_LADDERS) and not study.selects
    return "ladder" if ladder else "study"


def _note(study: Study, finished: list[tuple[str, FrozenTrial]]) -> str:
    """Why the values do not distinguish trials: they are equal, have one seed, or differ less than
    their seeds do; empty where they distinguish them."""
    if len(finished) < 2:
        return ""
    if _all_equal(finished):
        count = f"all {len(finished)} trials"
        return f"{count} have the same validation value: validation does not distinguish them"
    if not study.selects:
        return ""
    if len(study.seeds) == 1:
        return "one seed a trial: the variation between seeds is not known"
    (_, best), *others = finished
    alike = [label for label, trial in others if not _is_lower(trial, best)]
    labels = ", ".join([*alike[:MOST_LABELS], *(["…"] if len(alike) > MOST_LABELS else [])])
    share = f"{len(alike)} of the other {len(others)} trials"
    return f"not significantly lower, paired by seed (95 %): {share} ({labels})" if alike else ""


def _all_equal(finished: list[tuple[str, FrozenTrial]]) -> bool:
    return len(finished) > 1 and len({trial.value for _, trial in finished}) == 1


def _is_lower(trial: FrozenTrial, best: FrozenTrial) -> bool:
    """Whether a trial is significantly lower than the best, by differences at the same seed."""
    from analysis.stats import paired_difference  # scipy takes a second: not for a plan

    one, other = (
        {int(seed): value["val"] for seed, value in t.user_attrs[VALUES].items()}
        for t in (best, trial)
    )
    return paired_difference(one, other).low > 0


class Events:
    """Printer of one line for every trial that begins or ends."""

    EVERY_S = 1.0

    def __init__(self, trial_store: TrialStore) -> None:
        self.trial_store, self.looked = trial_store, 0.0
        self.reported = {label: trial.state for label, trial in trial_store.trials().items()}

    def poll(self) -> None:
        """Print what is new, at most once a second."""
        if time.monotonic() - self.looked >= self.EVERY_S:
            self.look()

    def look(self) -> None:
        """Print what is new."""
        self.looked = time.monotonic()
        for label, trial in self.trial_store.trials().items():
            if trial.state != self.reported.get(label) and trial.state != TrialState.WAITING:
                self.reported[label] = trial.state
                value = "" if trial.value is None else f"  val {100 * trial.value:.2f} %"
                say(
                    f"{time.strftime('%H:%M:%S')}  {WORDS[trial.state]:8}  trial {label}  "
                    f"{shown(trial)}{value}"
                )


def shown(trial: FrozenTrial | Trial) -> str:
    """The parameters of a trial as text."""
    return " ".join(f"{key}={value}" for key, value in setting(params_of(trial)))


def setting(params: Params) -> Setting:
    """Parameters with each value as short text."""
    return tuple((key, _short(value)) for key, value in params.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text_of(value)


def _state(trial_store: TrialStore, label: str, trial: FrozenTrial) -> str:
    halted = trial.state == TrialState.RUNNING and trial_store.is_halted(label)
    return "stopped" if halted else WORDS[trial.state]


def _finished(trial_store: TrialStore) -> list[tuple[str, FrozenTrial]]:
    """Finished trials: the best validation accuracy first where one is selected, else in the
    order of the study."""
    found = [p for p in trial_store.trials().items() if p[1].state == TrialState.COMPLETE]
    if not trial_store.study.selects:
        return found
    return sorted(found, key=lambda pair: -(pair[1].value or 0.0))


def _table(
    title: str,
    finished: list[tuple[str, FrozenTrial]],
    most: int,
    others: list[tuple[str, FrozenTrial]],
    trial_store: TrialStore,
) -> Table:
    """Table of at most `most` finished trials and all others; the caption counts the rest."""
    trials, left_out = [*finished[:most], *others], len(finished) - most
    table = Table(
        box=None,
        pad_edge=False,
        title=title,
        title_justify="left",
        show_header=bool(trials),
        caption=f"… and {left_out} more that finished" if left_out > 0 else None,
        caption_justify="left",
    )
    for head in ("trial", "state", "what varies", "val %", "sd", "n", "test %", "time"):
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
            label,
            _state(trial_store, label, trial),
            shown(trial),
            numbers[0],
            numbers[1],
            f"{len(values)}/{len(trial_store.study.seeds)}",
            numbers[2],
            "" if seconds is None else duration(seconds),
        )
    return table
