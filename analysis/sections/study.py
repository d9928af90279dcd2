"""Any study: its configurations by validation, what varied and what of it mattered.

Validation alone selects. Accuracies are fractions.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import tags
from analysis.cells import accuracy_cell, accuracy_text, number, percent, points
from analysis.figures import style
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable
from analysis.runs import column, select
from analysis.sections.ladder_tables import validation_notes
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import recipes, seeds_of
from analysis.stats import Interval, expected_maximum, one_standard_error, share_interval
from analysis.words import counted, separated
from trainers import metrics

MOST = 30  # configurations in the table
_SLICES = 6  # parameters that are drawn
_LOG = 50.0  # times the smallest value, from which on a positive range is logarithmic
_OWN = "(own)"  # the value of a configuration that does not set an option


class Trial(NamedTuple):
    """A configuration: the name of its row in the study, empty where it has none; the values of
    what varies, by option, and the options among them that it gave itself; accuracies by seed; its
    place in time and the mean seconds of a run. A ceiling has every label, so it is no choice."""

    name: str
    ceiling: bool
    values: dict[str, str]
    given: frozenset[str]
    by_seed: dict[int, float]
    validation: Interval
    test: Interval
    seconds: float


class StudyInfo(NamedTuple):
    """The trials of a bench in the order in which they began; `importance`: of each numeric or
    named option, shares of 1 (empty: too few trials)."""

    bench: str
    trials: tuple[Trial, ...]
    options: tuple[str, ...]
    importance: dict[str, float]

    @property
    def best(self) -> int:
        """The index of the highest mean validation accuracy, ceilings left out."""
        return next(k for k in self.ranked if not self.trials[k].ceiling)

    @property
    def choices(self) -> list[int]:
        """The indices of those that may be chosen."""
        return [k for k, trial in enumerate(self.trials) if not trial.ceiling]

    @property
    def ranked(self) -> list[int]:
        """The indices by falling validation accuracy."""
        return sorted(range(len(self.trials)), key=lambda k: -self.trials[k].validation.mean)

    @property
    def ties(self) -> tuple[int, ...]:
        """The indices of those with all seeds of the best that are within one standard error of it,
        by differences at the same seeds (none where it has one seed)."""
        if not self.choices:
            return ()
        seeds = sorted(self.trials[self.best].by_seed)
        able = [k for k in self.choices if self.trials[k].by_seed.keys() >= {*seeds}]
        table = [[self.trials[k].by_seed[seed] for seed in seeds] for k in able]
        return tuple(able[index] for index in one_standard_error(table))

    @property
    def chosen(self) -> int | None:
        """By the rule: of those that tie with the best the one that takes the least time."""
        return min(self.ties, key=lambda k: self.trials[k].seconds, default=None)


def study_info(
    runs: pd.DataFrame, bench: str, names: Mapping[tuple[object, object], str] | None = None
) -> StudyInfo:
    """The study of finished runs of a bench, each with a validation accuracy; `names` are those of
    the rows, by study and trial (`row_names`)."""
    runs = runs[seeds_of(runs).notna()].sort_values("start_time")
    studies = column(runs, f"tags.{tags.STUDY}")
    if studies.notna().any():  # of several the one with the most runs
        runs = runs[studies.eq(studies.value_counts().index[0])]
    if runs.empty:
        return StudyInfo(bench, (), (), {})
    given, recipe = _given(runs), recipes(runs)
    values, named = _values(runs, given), _names_of(runs, names or {})
    ceiling = column(runs, "params.data.every_label").eq("True")
    groups = runs.groupby(recipe, sort=False).groups.values()
    trials = tuple(
        Trial(
            next(filter(None, named[rows]), ""),
            bool(ceiling[rows].any()),
            values[rows[0]],
            frozenset(given[rows[0]]),
            *_accuracies(runs.loc[rows]),
        )
        for rows in groups
    )
    options = tuple(dict.fromkeys(option for trial in trials for option in trial.values))
    return StudyInfo(bench, trials, options, _importance(trials, options))


def row_names(runs: pd.DataFrame) -> dict[tuple[object, object], str]:
    """The names that a study's file gives its rows, by study and trial."""
    trials = runs[column(runs, f"tags.{tags.STAGE}").eq("trial")]
    rows = column(trials, "params.row")
    return {key: name for key, name in zip(_trial_of(trials), rows, strict=True) if pd.notna(name)}


def _trial_of(runs: pd.DataFrame) -> list[tuple[object, object]]:
    columns = (column(runs, f"tags.{name}") for name in (tags.STUDY, tags.TRIAL))
    return list(zip(*columns, strict=True))


def _names_of(runs: pd.DataFrame, names: Mapping[tuple[object, object], str]) -> pd.Series:
    return pd.Series([names.get(key, "") for key in _trial_of(runs)], runs.index, dtype=object)


def _given(runs: pd.DataFrame) -> dict[object, dict[str, str]]:
    """Of each run the options that its command gave."""
    given: dict[object, dict[str, str]] = {}
    for row, line in column(runs, "params.overrides").items():
        words = separated(line) if isinstance(line, str) else []
        pairs = (word.lstrip("+").partition("=") for word in words)
        given[row] = {key: value for key, _, value in pairs if key not in ("seed", "")}
    return given


def _values(
    runs: pd.DataFrame, given: dict[object, dict[str, str]]
) -> dict[object, dict[str, str]]:
    """Of each run the options that vary among the given ones, with the values that were logged."""
    known = {key for of in given.values() for key in of if not key.startswith("runtime.")}
    varied = [key for key in known if len({of.get(key) for of in given.values()}) > 1]
    kept = sorted(varied, key=lambda key: ("." in key, key))  # the rung first
    logged = {key: dict(column(runs, f"params.{key}").dropna()) for key in kept}
    return {
        row: {key: str(logged[key].get(row, of.get(key, _OWN))) for key in kept}
        for row, of in given.items()
    }


def _accuracies(
    runs: pd.DataFrame,
) -> tuple[dict[int, float], Interval, Interval, float]:
    """Of a configuration: validation by seed, validation, test, and mean seconds of a run."""
    newest = runs[~seeds_of(runs).duplicated(keep="last")]
    validation = newest[f"metrics.{metrics.BEST_VAL_TOP1}"].astype(float)
    by_seed = dict(zip(seeds_of(newest).astype(int), validation, strict=True))
    test = column(newest, f"metrics.{metrics.TEST_TOP1}").astype(float)
    seconds = column(newest, f"metrics.{metrics.RUN_SECONDS}").astype(float)
    return (
        by_seed,
        share_interval(list(by_seed.values())),
        share_interval(test[test.between(0, 1)].tolist()),
        float(seconds.mean()),
    )


def _importance(trials: tuple[Trial, ...], options: tuple[str, ...]) -> dict[str, float]:
    """Optuna's importance of the options (fANOVA, Hutter et al. 2014); nothing of fewer than four
    trials, or where all are equally good."""
    values = [trial.validation.mean for trial in trials]
    if len(trials) < 4 or not options or np.ptp(values) == 0.0:
        return {}
    import optuna

    distributions = {name: _distribution([t.values[name] for t in trials]) for name in options}
    spoken = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(spoken)
    for trial, value in zip(trials, values, strict=True):
        params = {
            name: trial.values[name]
            if isinstance(one, optuna.distributions.CategoricalDistribution)
            else float(trial.values[name])
            for name, one in distributions.items()
        }
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distribution(values: list[str]):
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = numeric(values)
    if numbers is None:
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(min(numbers), max(numbers), log=logarithmic(numbers))


def numeric(values: list[str]) -> list[float] | None:
    """The values as numbers; None where one is not, or there are two different ones at most."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if len(set(numbers)) > 2 and all(map(math.isfinite, numbers)) else None


def logarithmic(numbers: list[float]) -> bool:
    """Whether numbers are spread over orders of magnitude."""
    return min(numbers) > 0 and max(numbers) / min(numbers) > _LOG


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    done = select(
        bench_runs.runs, stage="distill", bench=bench_runs.bench, needs=metrics.BEST_VAL_TOP1
    )
    info = study_info(done.kept, bench_runs.bench, row_names(bench_runs.runs))
    title = "Study"
    if len(info.choices) < 2:
        what = "fewer than two configurations have finished: a study varies options"
        command = "python -m sweeps joint"
        return Section("study", info.bench, title, gaps=(MissingRun(what, command),))
    importance = (
        (Table("Importance of the options (fANOVA, Optuna)", importance_block(info)),)
        if info.importance
        else ()
    )
    return Section(
        "study",
        info.bench,
        title,
        sentences=_sentences(info),
        tables=(
            Table("Configurations by validation (95 % t-intervals over seeds)", block(info)),
            *importance,
        ),
        figures=tuple(_figures(info)),
        notes=(*validation_notes(done.kept), *_notes(info)),
        run_ids=tuple(done.kept["run_id"]),
        summary=_sentences(info),
    )


_NOTE = (
    "The rule: of the configurations that are at most one standard error of the paired difference "
    "below the best on validation, the one that takes the least time (*). Test accuracies are for "
    "reading: none selects."
)


def _notes(info: StudyInfo) -> tuple[str, ...]:
    if len(info.choices) == len(info.trials):
        return (_NOTE,)
    return (_NOTE, "A ceiling has every label: it is shown, and not chosen.")


def _sentences(info: StudyInfo) -> tuple[str, ...]:
    count, best = len(info.choices), info.trials[info.best]
    n = len(best.by_seed)
    high = expected_maximum(count)
    texts = [
        f"The best of {counted(count, 'configuration')} on validation: {_named(best)}, "
        f"{accuracy_text(best.validation)} ({counted(n, 'seed')}). The best of {count} equal ones "
        f"would be {high:.1f} standard errors too high by chance{_worth(best, high)}."
    ]
    if info.chosen is None:
        texts.append("One seed has no standard error: the rule chooses none.")
    else:
        chosen = info.trials[info.chosen]
        texts.append(
            f"Chosen by the one-standard-error rule, of {len(info.ties)} that tie: "
            f"{_named(chosen)}, {accuracy_text(chosen.validation)}."
        )
    return tuple(texts)


def _worth(best: Trial, high: float) -> str:
    values = list(best.by_seed.values())
    if len(values) < 2:
        return ""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f" ({points(high * error)} points)"


def _named(trial: Trial) -> str:
    """The name of its row, or `lr=0.008 tau=2`: what the configuration sets itself."""
    if trial.name:
        return trial.name
    own = [(key.rpartition(".")[2], v) for key, v in trial.values.items() if key in trial.given]
    return " ".join(f"{key}={value}" for key, value in own) or "the base"


def block(info: StudyInfo) -> TextTable:
    """A row a configuration, the best first."""
    header = ("what varies", "n", "validation, %", "test, %", "time, s")
    rows = []
    for index in info.ranked[:MOST]:
        trial = info.trials[index]
        rows.append(
            (
                _named(trial) + " *" * (index == info.chosen) + " (ceiling)" * trial.ceiling,
                str(len(trial.by_seed)),
                accuracy_cell(trial.validation),
                accuracy_cell(trial.test),
                number(trial.seconds),
            )
        )
    if (more := len(info.trials) - MOST) > 0:
        rows.append((f"… and {more} more", "", "", "", ""))
    return TextTable(header, tuple(rows))


def importance_block(info: StudyInfo) -> TextTable:
    """A row an option, the most important first."""
    rows = tuple((name, percent(share)) for name, share in info.importance.items())
    return TextTable(("option", "share, %"), rows)


def _figures(info: StudyInfo) -> list[ReportFigure]:
    history = ReportFigure(
        f"study_history_{info.bench}",
        draw_history(info),
        f"Mean validation accuracy on {info.bench} of each configuration in the order in which "
        "they began; the line is the best so far.",
    )
    shown = list(info.importance or info.options)[:_SLICES]
    if not shown:
        return [history]
    slices = ReportFigure(
        f"study_slices_{info.bench}",
        draw_slices(info, shown),
        f"Mean validation accuracy on {info.bench} of each configuration against the options that "
        "vary, the most important first. The other options vary too.",
    )
    return [slices, history]


def draw_history(info: StudyInfo) -> Figure:
    """A point a configuration, and the best so far."""
    figure, axes = style.new_figure(f"{info.bench}: history", "configuration", "validation, %")
    means = [100 * trial.validation.mean for trial in info.trials]
    x, look = range(1, len(means) + 1), style.series(0)
    axes.plot(x, means, linestyle="none", marker=look.marker, color=look.colour, markersize=4)
    axes.plot(x, np.maximum.accumulate(means), color=style.BOUNDARY, drawstyle="steps-post")
    return figure


def draw_slices(info: StudyInfo, options: list[str]) -> Figure:
    """A panel an option."""
    labels = ["validation, %", *[""] * (len(options) - 1)]
    figure, panels = style.new_panels(f"{info.bench}: what varied", "", labels)
    means, look = [100 * trial.validation.mean for trial in info.trials], style.series(0)
    for axes, option in zip(panels, options, strict=True):
        texts = [trial.values[option] for trial in info.trials]
        numbers = numeric(texts)
        names = sorted(set(texts))
        x = [float(names.index(text)) for text in texts] if numbers is None else numbers
        axes.plot(x, means, linestyle="none", marker=look.marker, color=look.colour, markersize=4)
        if numbers is None:
            axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        elif logarithmic(numbers):
            axes.set_xscale("log")
        axes.set_xlabel(option.rpartition(".")[2], fontsize=style.SMALL)
    return figure
