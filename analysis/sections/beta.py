"""How accuracy, rate and distortion depend on β, and which β validation recommends.

Accuracies are fractions, rate and distortion nats.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import accuracy_cell, accuracy_text, percent, value_cell
from analysis.figures import style
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.sections.health import given
from analysis.sections.ladder_tables import validation_notes
from analysis.selection.bench_runs import BenchRuns, grid
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from analysis.stats import (
    NO_INTERVAL,
    ROUNDING,
    Interval,
    mean_interval,
    one_standard_error,
    share_interval,
)
from analysis.words import counted
from trainers import metrics
from trainers.health import WARNINGS

PARAMETER = "method.ib_beta"
_AGAINST = ("sigma_at_one", "sigma_at_floor", "synergy_at_chance")  # warnings against a β
_LOST = 2.0  # times the least distortion, from which on it is reported
FIRST = "L1"  # the first rung with a bottleneck, and the cheapest
TRIED = ("0", "1e-4", "1e-3", "1e-2")  # a first sweep


class BetaRow(NamedTuple):
    """One β: means and intervals over seeds; an interval without a value has n = 0."""

    beta: float
    seeds: tuple[int, ...]
    validation: Interval
    test: Interval
    rate: Interval
    distortion: Interval
    synergy: Interval = NO_INTERVAL  # validation accuracy of the last fusion
    shared: Interval = NO_INTERVAL  # validation on the seeds that every β has
    warnings: tuple[str, ...] = ()  # that its runs gave while they trained


class BetaInfo(NamedTuple):
    """Rows by rising β; `sampled` is whether rate and distortion are of sampled z on validation,
    or of training batches; `within` are the β that are within one standard error of their paired
    difference to the best, on the seeds that every β has: other seeds are other students, not
    another β. None are where they share fewer than two, for one seed has no standard error."""

    bench: str
    rung: str
    rows: tuple[BetaRow, ...]
    sampled: bool
    within: tuple[float, ...]

    @property
    def best(self) -> tuple[BetaRow, ...]:
        """The rows of the highest validation mean, several where they tie."""
        highest = max((row.shared.mean for row in self.rows), default=float("nan"))
        return tuple(row for row in self.rows if row.shared.mean >= highest - ROUNDING)

    @property
    def tied(self) -> bool:
        """Whether all means are equal, so that validation tells nothing of β."""
        return bool(self.rows) and len(self.best) == len(self.rows)

    @property
    def recommended(self) -> float | None:
        """By the one-standard-error rule; of a flat curve the smallest. None where it cannot
        tell."""
        if self.tied or not self.within:
            return None
        return min(self.within) if self.flat else max(self.within)

    @property
    def flat(self) -> bool:
        """Whether all β are within one standard error of the best."""
        return len(self.within) == len(self.rows)


def beta_info(kept: pd.DataFrame, bench: str) -> BetaInfo:
    """The sensitivity of runs that differ in β and seed alone."""
    rung = str(column(kept, RUNG_COLUMNS[1]).iloc[0]) if len(kept) else ""
    value = column(kept, f"params.{PARAMETER}").astype(float)
    sampled = len(kept) > 0 and bool(column(kept, f"metrics.{metrics.VAL_CE}").notna().all())
    measured = (metrics.VAL_RATE, metrics.VAL_CE) if sampled else (metrics.RATE, metrics.DISTORTION)
    rows = [_row(kept[value == beta], beta, measured) for beta in sorted(value.dropna().unique())]
    by_seed = [_by_seed(kept[value == row.beta]) for row in rows]
    seeds = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    shared = [[of[seed] for seed in seeds] for of in by_seed]
    rows = [r._replace(shared=share_interval(v)) for r, v in zip(rows, shared, strict=True)]
    within = tuple(rows[index].beta for index in one_standard_error(shared))
    return BetaInfo(bench, rung, tuple(rows), sampled, within)


def _row(runs: pd.DataFrame, beta: float, measured: tuple[str, str]) -> BetaRow:
    rate, distortion = (mean_interval(_values(runs, name)) for name in measured)
    accuracies = (_values(runs, name) for name in (metrics.BEST_VAL_TOP1, metrics.TEST_TOP1))
    validation, test = map(share_interval, accuracies)
    synergy = share_interval(_values(runs, metrics.SYNERGY_RESTORED))
    seeds = tuple(sorted(seeds_of(runs).astype(int)))
    warnings = given(runs)
    return BetaRow(
        float(beta), seeds, validation, test, rate, distortion, synergy, warnings=warnings
    )


def _by_seed(runs: pd.DataFrame) -> dict[int, float]:
    values = column(runs, f"metrics.{metrics.BEST_VAL_TOP1}").astype(float)
    there = np.isfinite(values)
    return dict(zip(seeds_of(runs)[there].astype(int), values[there], strict=True))


def _values(runs: pd.DataFrame, metric: str) -> list[float]:
    values = column(runs, f"metrics.{metric}").astype(float)
    return values[np.isfinite(values)].tolist()


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    chosen = grid(bench_runs.finished, PARAMETER)
    info = beta_info(chosen.kept[_sampled(chosen.kept)], bench_runs.bench)
    title = "Sensitivity to β"
    if len(info.rows) < 2:
        what = "fewer than two values of method.ib_beta have finished"
        command = bench_runs.multirun(cfg=FIRST, method__ib_beta=",".join(TRIED))
        return Section("beta", bench_runs.bench, title, gaps=(MissingRun(what, command),))
    return Section(
        "beta",
        bench_runs.bench,
        title,
        sentences=_sentences(info),
        tables=(
            Table(f"{info.rung} by β (means over seeds, 95 % t-intervals)", block(info)),
            Table("What the latent and the fusion keep (the same)", kept_block(info)),
        ),
        figures=(ReportFigure(f"beta_{info.bench}", draw(info), _caption(info)),),
        notes=(*validation_notes(chosen.kept), _terms(info)),
        gaps=_gaps(bench_runs, info),
        run_ids=tuple(chosen.kept["run_id"]),
        summary=_advice(info),
    )


def _sampled(runs: pd.DataFrame) -> pd.Series:
    return ~column(runs, "params.method.bottleneck").eq("False")


def _gaps(bench_runs: BenchRuns, info: BetaInfo) -> tuple[MissingRun, ...]:
    seeds = sorted({seed for row in info.rows for seed in row.seeds})
    found = []
    for beta, there in {0.0: (), **{row.beta: row.seeds for row in info.rows}}.items():
        if absent := [seed for seed in seeds if seed not in there]:
            listed = ", ".join(map(str, absent))
            what = f"β = {beta:g} {f'has no seed {listed}' if there else 'is not there'}"
            command = bench_runs.multirun(absent, cfg=info.rung, method__ib_beta=f"{beta:g}")
            found.append(MissingRun(what, command))
    doubted = any(warning in _AGAINST for warning in info.rows[-1].warnings)
    if info.recommended == info.rows[-1].beta and not doubted:
        command = bench_runs.multirun(
            seeds, cfg=info.rung, method__ib_beta=f"{10 * info.recommended:g}"
        )
        found.append(MissingRun("the recommended β is the largest that was tried", command))
    return tuple(found)


def _sentences(info: BetaInfo) -> tuple[str, ...]:
    means = [row.test.mean for row in info.rows]
    texts = [
        *_advice(info),
        f"Over {len(info.rows)} values of β the mean test accuracy of {info.rung} lies between "
        f"{percent(min(means))} and {percent(max(means))} %.",
    ]
    if any(row.test.n < 2 for row in info.rows):
        texts.append("A β with one seed has no interval.")
    return tuple(texts)


_RULE = (
    "The rule: of the values that are at most one standard error of the paired difference below "
    "the highest on validation, the largest, since it keeps the least of the input; where all "
    "values are, the smallest, since no more of it is shown to be of use."
)


def _advice(info: BetaInfo) -> tuple[str, ...]:
    """What is recommended, by which rule, and what speaks against it."""
    rule = () if info.recommended is None else (_RULE,)
    return (_recommendation(info), *rule, *_doubts(info))


def _recommendation(info: BetaInfo) -> str:
    """Which β is recommended and why, or why none is."""
    n = info.rows[0].shared.n
    if n == 0:
        return "No β is recommended: no seed has finished at every β."
    same = all(row.validation.n == n for row in info.rows)
    seeds = counted(n, "seed") + ("" if same else " that every β has")
    reached = accuracy_text(info.best[-1].shared)  # of equals the rule takes the largest β
    if info.tied:
        return (
            f"No β is recommended: all {len(info.rows)} values tie on validation ({reached}; "
            f"{seeds}), which does not tell them apart."
        )
    best = ", ".join(f"{row.beta:g}" for row in info.best)
    if info.recommended is None:
        return (
            f"No β is recommended: {seeds}, so that there is no standard error. The highest by "
            f"validation: β = {best} ({reached}), no more than that."
        )
    if len(info.best) == 1 and info.best[0].beta == info.recommended:
        why = f"the best by validation ({reached})"
    else:
        end = "smallest" if info.flat else "largest"
        tie = "the best" if len(info.best) == 1 else f"{len(info.best)} that tie for the best"
        why = f"the {end} within one standard error of {tie} ({best}: {reached})"
    everything = (
        f" All {len(info.rows)} values lie within one standard error of the best: none is shown to "
        "differ, and the rule alone chooses."
    ) * info.flat
    return f"Recommended β: {info.recommended:g}, {why}; {seeds}.{everything}"


def _doubts(info: BetaInfo) -> tuple[str, ...]:
    """What the latent of the recommended β has lost, and the warnings that its runs gave while they
    trained."""
    chosen = [row for row in info.rows if row.beta == info.recommended]
    return (*_lost(info, chosen), *_warned(info, chosen))


def _lost(info: BetaInfo, chosen: list[BetaRow]) -> tuple[str, ...]:
    known = [row for row in info.rows if row.distortion.n]
    least = min(known, key=lambda row: row.distortion.mean, default=None)
    return tuple(
        f"At β = {row.beta:g} the latent tells less of the label: its distortion is "
        f"{row.distortion.mean:.2f} nats, at β = {least.beta:g} {least.distortion.mean:.2f}."
        for row in chosen
        if least is not None and row.distortion.mean > _LOST * least.distortion.mean
    )


def _warned(info: BetaInfo, chosen: list[BetaRow]) -> tuple[str, ...]:
    warnings = [warning for row in chosen for warning in row.warnings if warning in _AGAINST]
    return tuple(
        f"Runs at β = {info.recommended:g} gave the warning {warning}: {WARNINGS[warning].advice}"
        for warning in warnings
    )


def block(info: BetaInfo) -> TextTable:
    """What the student reaches: one row a β, the recommended one with a star."""
    header = ("β", "n", "validation, %", "test, %")
    return TextTable(
        header,
        tuple(
            (
                _starred(row, info),
                str(len(row.seeds)),
                accuracy_cell(row.validation),
                accuracy_cell(row.test),
            )
            for row in info.rows
        ),
    )


def kept_block(info: BetaInfo) -> TextTable:
    """What the latent carries and the fusion makes of it: one row a β."""
    header = ("β", "rate, nats", "distortion, nats", "synergy, %")
    return TextTable(
        header,
        tuple(
            (
                _starred(row, info),
                value_cell(row.rate, 3),
                value_cell(row.distortion, 3),
                accuracy_cell(row.synergy),
            )
            for row in info.rows
        ),
    )


def _starred(row: BetaRow, info: BetaInfo) -> str:
    return f"{row.beta:g}" + " *" * (row.beta == info.recommended)


def _terms(info: BetaInfo) -> str:
    return (
        "Rate: the Kullback-Leibler divergence of the latent from its prior, a bound on what it "
        "keeps of the teachers' features; distortion: the cross-entropy of the labels given the "
        f"latent; both in nats, on {_measured_on(info)}. Synergy: validation accuracy of the "
        "fusion that the last B-Step used."
    )


def _measured_on(info: BetaInfo) -> str:
    return "validation images, z sampled 8 times" if info.sampled else "training batches"


def _caption(info: BetaInfo) -> str:
    counts = seeds_caption((f"β = {row.beta:g}", len(row.seeds)) for row in info.rows)
    bars = style.bars_caption(row.test for row in info.rows)
    dotted = "" if info.recommended is None else " Dotted line: the recommended β."
    zero = any(row.beta == 0 for row in info.rows)
    grey = " Grey bar: left of it β = 0, which has no place on a logarithmic axis." if zero else ""
    return (
        f"{info.rung} on {info.bench}: means with {bars} against β, validation and test a little "
        f"aside so that none covers the other; rate and distortion of {_measured_on(info)}; "
        f"{counts}.{dotted}{grey}"
    )


_ASIDE = 0.1  # decades between the bars of two series
_PANELS = (
    ("top-1, %", 100, ("validation", "test")),
    ("rate, nats", 1, ("rate",)),
    ("distortion, nats", 1, ("distortion",)),
)


def draw(info: BetaInfo) -> Figure:
    """Accuracies, rate and distortion over each other, over one logarithmic β axis; no panel for
    what no run measured."""
    panels = [one for one in _PANELS if any(getattr(row, f).n for row in info.rows for f in one[2])]
    figure, drawn = style.new_panels(
        f"{info.bench}: {info.rung} against β", "β", [label for label, _, _ in panels], stacked=True
    )
    betas = [row.beta for row in info.rows]
    x = positions(betas)
    for axes, (_, scale, fields) in zip(drawn, panels, strict=True):
        series = [[getattr(row, field) for row in info.rows] for field in fields]
        for index, (field, intervals) in enumerate(zip(fields, series, strict=True)):
            shift = _ASIDE * (index - (len(fields) - 1) / 2)
            aside = [at + shift for at in x]
            style.draw_intervals(axes, aside, intervals, style.series(index), field, scale=scale)
        axes.set_ylim(style.view([one for of in series for one in of], scale=scale))
        beta_axis(axes, betas, x)
        if info.recommended is not None:
            at = x[betas.index(info.recommended)]
            axes.axvline(at, color=style.BOUNDARY, linestyle=":", linewidth=1, zorder=0)
        if len(fields) > 1:  # over the panel, where it covers no bar
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1, 1),
                ncols=len(fields),
                fontsize=style.SMALL,
                frameon=False,
            )
    return figure


def positions(betas: list[float]) -> list[float]:
    """Decimal logarithms; β = 0 is one decade and a half left of the smallest other."""
    logs = [float(np.log10(beta)) for beta in betas if beta > 0]
    zero = min(logs, default=0.0) - 1.5
    return [float(np.log10(beta)) if beta > 0 else zero for beta in betas]


def beta_axis(axes: Axes, betas: list[float], x: list[float]) -> None:
    """Ticks at the values; a grey line parts β = 0 from the logarithmic axis."""
    axes.set_xticks(x, [f"{beta:g}" for beta in betas])
    if len(x) > 1 and 0.0 in betas:
        axes.axvline(min(x) + 0.75, color=style.FAINT, linewidth=3, zorder=0)
