"""The information plane: rate R ≥ I(Z;X) against H(Y) − CE ≤ I(Z;Y), in nats.

CE is that of sampled z on validation images, unsmoothed and unweighted. Accuracy is no mutual
information and is not drawn here.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.cells import number, value_cell
from analysis.figures import style
from analysis.ladder_numbers import rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import by_step, column
from analysis.sections.beta import FIRST, PARAMETER, TRIED
from analysis.selection.bench_runs import BenchRuns, grid
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from analysis.stats import (
    NO_INTERVAL,
    Interval,
    mean_interval,
    paired_difference,
    pareto_front,
)
from trainers import metrics

_FILES = {"rungs": "rungs", "β": "beta"}
METRICS = (metrics.VAL_RATE, metrics.VAL_CE, metrics.LABEL_ENTROPY)


class Path(NamedTuple):
    """The mean over seeds at each A-Step epoch that was measured: (rate, information); and both
    with their intervals at the last."""

    label: str
    points: tuple[tuple[float, float], ...]
    rate: Interval
    information: Interval
    front: bool  # whether its last point is on the Pareto front of the last points

    @property
    def n(self) -> int:
        """The seeds that it is a mean of."""
        return self.rate.n


class PlaneInfo(NamedTuple):
    """The paths of a bench; `entropy` is the mean H(Y), what I(Z;Y) can reach at most; `lead`
    is the highest information less that of the next path, `next`, paired by seed."""

    bench: str
    paths: tuple[Path, ...]
    entropy: float
    next: str = ""
    lead: Interval = NO_INTERVAL


def plane_info(labels: pd.Series, seeds: pd.Series, history: pd.DataFrame, bench: str) -> PlaneInfo:
    """`labels` names the group of each run, in the order that is drawn, `seeds` its seed (index of
    both: run id); `history` holds `METRICS`. Where one seed of a group has no value at a step it
    has no point."""
    wide = by_step(history)
    wide = wide.reindex(columns=list(METRICS)).replace([np.inf, -np.inf], np.nan).dropna()
    wide["information"] = wide[metrics.LABEL_ENTROPY] - wide[metrics.VAL_CE]
    both, found = [metrics.VAL_RATE, "information"], []
    by_seed: dict[str, dict[int, float]] = {}
    for label in dict.fromkeys(labels):
        runs = wide[wide.index.get_level_values("run_id").isin(labels.index[labels == label])]
        count = runs.index.get_level_values("run_id").nunique()
        steps = runs.groupby("step")
        mean = steps[both].mean()[steps.size() == count]
        points = tuple((float(x), float(y)) for x, y in mean.to_numpy())
        if points:
            last = runs.xs(mean.index[-1], level="step")
            rate, information = (mean_interval(last[name].tolist()) for name in both)
            found.append(Path(str(label), points, rate, information, front=False))
            kept = last["information"]
            by_seed[str(label)] = dict(zip(seeds[kept.index].astype(int), kept, strict=True))
    front = pareto_front([p.rate.mean for p in found], [p.information.mean for p in found])
    paths = tuple(path._replace(front=on) for path, on in zip(found, front, strict=True))
    entropy = float(wide[metrics.LABEL_ENTROPY].mean())
    first = sorted(paths, key=lambda path: -path.information.mean)[:2]
    if len(first) < 2:
        return PlaneInfo(bench, paths, entropy)
    lead = paired_difference(by_seed[first[0].label], by_seed[first[1].label])
    return PlaneInfo(bench, paths, entropy, first[1].label, lead)


def section(bench_runs: BenchRuns) -> Section:
    """Over epochs for each rung, and over β where there are several."""
    title = "Information plane"
    runs = _with_values(bench_runs.kept)
    swept = grid(bench_runs.finished, PARAMETER).kept
    swept = _with_values(swept) if len(swept) else swept
    if not len(runs) and not len(swept):
        what = "no run measured rate and cross-entropy with sampled z on validation"
        command = bench_runs.multirun(cfg=FIRST)
        return Section(
            "information_plane", bench_runs.bench, title, gaps=(MissingRun(what, command),)
        )
    infos = [("rungs", _by_rung(bench_runs, runs))] if len(runs) else []
    beta = column(swept, f"params.{PARAMETER}")
    if beta.nunique() > 1:
        infos.append(("β", _by_beta(bench_runs, swept)))
    gaps = () if beta.nunique() > 1 else (_sweep(bench_runs),)
    run_ids = dict.fromkeys([*runs["run_id"], *swept["run_id"]])
    return Section(
        "information_plane",
        bench_runs.bench,
        title,
        sentences=tuple(f"Over {kind}: {_sentence(info)}" for kind, info in infos),
        tables=tuple(
            Table(f"End points over {kind} (means, 95 % t-intervals)", block(info))
            for kind, info in infos
        ),
        figures=tuple(
            ReportFigure(
                f"information_plane_{_FILES[kind]}_{info.bench}", draw(info), _caption(info)
            )
            for kind, info in infos
        ),
        gaps=gaps,
        notes=("Both axes are bounds: the rate from above, H(Y) − CE from below.",),
        run_ids=tuple(run_ids),
    )


def _with_values(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[column(runs, f"metrics.{metrics.VAL_CE}").notna()]


def _sweep(bench_runs: BenchRuns) -> MissingRun:
    command = bench_runs.multirun(cfg=FIRST, method__ib_beta=",".join(TRIED))
    return MissingRun("only one β was measured", command)


def _by_rung(bench_runs: BenchRuns, runs: pd.DataFrame) -> PlaneInfo:
    rung = runs.set_index("run_id")[RUNG_COLUMNS[1]]
    order = rung_order(rung.unique())
    labels = rung.sort_values(key=lambda names_: names_.map(order.index), kind="stable")
    return _plane(bench_runs, runs, labels)


def _by_beta(bench_runs: BenchRuns, runs: pd.DataFrame) -> PlaneInfo:
    beta = runs.set_index("run_id")[f"params.{PARAMETER}"].astype(float).sort_values()
    labels = beta.map(lambda value: f"β = {value:g}")
    return _plane(bench_runs, runs, labels)


def _plane(bench_runs: BenchRuns, runs: pd.DataFrame, labels: pd.Series) -> PlaneInfo:
    seeds = seeds_of(runs.set_index("run_id"))
    return plane_info(labels, seeds, bench_runs.history(runs, METRICS), bench_runs.bench)


def _sentence(info: PlaneInfo) -> str:
    best = max(info.paths, key=lambda path: path.information.mean)
    rate, kept = best.rate.mean, best.information.mean
    front = ", ".join(path.label for path in info.paths if path.front)
    if kept <= 0:
        return (
            "No latent is shown to keep anything about the label: its cross-entropy is not below "
            f"H(Y) = {info.entropy:.2f} nats."
        )
    return (
        f"{best.label} has the most information about the label, at least {kept:.2f}"
        f"{_bounds(best.information, 2)} of {info.entropy:.2f} nats at a rate of {rate:.2f}"
        f"{_bounds(best.rate, 2)} nats (n = {best.n}){_lead(info)}. "
        f"Pareto front of the means: {front}."
    )


def _lead(info: PlaneInfo) -> str:
    """The paired difference to the next path, and whether it is shown."""
    if not info.next:
        return ""
    if info.lead.n < 2:
        return f"; no two seeds in common with the next, {info.next}, so no conclusion"
    shown = "" if info.lead.low > 0 else ", so that it is not shown to keep more"
    return (
        f"; {number(info.lead.mean, 3)}{_bounds(info.lead, 3)} nats more than the next, "
        f"{info.next}, paired by seed and not corrected for the choice{shown}"
    )


def _bounds(found: Interval, decimals: int) -> str:
    if found.n < 2:
        return ""
    return f" [{number(found.low, decimals)}, {number(found.high, decimals)}]"


def block(info: PlaneInfo) -> TextTable:
    """The last point of each path, with its intervals."""
    header = ("", "n", "rate R, nats", "H(Y) − CE, nats", "Pareto front")
    return TextTable(
        header,
        tuple(
            (
                path.label,
                str(path.n),
                *(value_cell(one, 3) for one in (path.rate, path.information)),
                "yes" if path.front else "no",
            )
            for path in info.paths
        ),
    )


def _caption(info: PlaneInfo) -> str:
    counts = seeds_caption((path.label, path.n) for path in info.paths)
    bars = style.bars_caption(path.rate for path in info.paths)
    return (
        f"Means over seeds on validation images of {info.bench}, from the first A-Step epoch "
        f"measured (thin end) to the last (marker); bars of both are {bars}; {counts}. Dotted: "
        "H(Y); dashed: Pareto front of the last points, which are means."
    )


def draw(info: PlaneInfo) -> Figure:
    """A path a group; the marker is its end; the front of the ends is joined."""
    figure, axes = style.new_figure(
        f"{info.bench}: information plane",
        "rate R, nats (at least I(Z;X))",
        "H(Y) − CE, nats (at most I(Z;Y))",
    )
    looks = style.looks([path.label for path in info.paths])
    for path in info.paths:
        look = looks[path.label]
        xs, ys = zip(*path.points, strict=True)
        axes.plot(xs, ys, color=look.colour, linewidth=0.9, alpha=0.7)
        axes.errorbar(
            [path.rate.mean],
            [path.information.mean],
            xerr=style.whiskers([path.rate]),
            yerr=style.whiskers([path.information]),
            color=look.colour,
            marker=look.marker,
            linestyle="",
            elinewidth=0.8,
            capsize=3,
            label=f"{path.label} (n = {path.n})",
        )
    ends = sorted((path.rate.mean, path.information.mean) for path in info.paths if path.front)
    axes.plot(*zip(*ends, strict=True), color=style.BOUNDARY, linestyle="--", linewidth=1, zorder=1)
    axes.axhline(info.entropy, color=style.BOUNDARY, linestyle=":", linewidth=1, zorder=0)
    passed = [point for path in info.paths for point in path.points]
    axes.set_xlim(style.view([path.rate for path in info.paths], *(x for x, _ in passed)))
    axes.set_ylim(
        style.view([p.information for p in info.paths], info.entropy, *(y for _, y in passed))
    )
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
