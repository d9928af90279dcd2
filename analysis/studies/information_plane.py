"""The information plane: rate R ≥ I(Z;X) against H(Y) − CE ≤ I(Z;Y), in nats.

CE is that of drawn z on validation images, unsmoothed and unweighted. Accuracy is no mutual
information and is not drawn here.
"""

from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis import style
from analysis.configuration import RUNG_COLUMNS
from analysis.evidence import Evidence, grid
from analysis.render import Block, number
from analysis.runs import by_step, column
from analysis.stats import pareto_front
from analysis.studies.beta import PARAMETER
from analysis.study import Drawing, Gap, Study, Table, seeds_caption
from analysis.tables import rung_order
from pipeline import names

METRICS = (names.VAL_RATE, names.VAL_CE, names.LABEL_ENTROPY)


class Path(NamedTuple):
    """The mean over `n` seeds at each A-Step epoch that was measured: (rate, information)."""

    label: str
    n: int
    points: tuple[tuple[float, float], ...]
    front: bool  # whether its last point is on the Pareto front of the last points


class PlaneInfo(NamedTuple):
    """The paths of a bench; `entropy` is the mean H(Y), what I(Z;Y) can reach at most."""

    bench: str
    paths: tuple[Path, ...]
    entropy: float


def plane_info(labels: pd.Series, history: pd.DataFrame, bench: str) -> PlaneInfo:
    """`labels` names the group of each run (index: run id), in the order that is drawn;
    `history` holds `METRICS`. Where one seed of a group has no value at a step it has no point."""
    wide = by_step(history)
    wide = wide.reindex(columns=list(METRICS)).dropna()
    wide["information"] = wide[names.LABEL_ENTROPY] - wide[names.VAL_CE]
    found = []
    for label in dict.fromkeys(labels):
        runs = wide[wide.index.get_level_values("run_id").isin(labels.index[labels == label])]
        seeds = runs.index.get_level_values("run_id").nunique()
        steps = runs.groupby("step")
        mean = steps[[names.VAL_RATE, "information"]].mean()[steps.size() == seeds]
        points = tuple((float(x), float(y)) for x, y in mean.to_numpy())
        found += [Path(str(label), seeds, points, False)] if points else []
    front = pareto_front([p.points[-1][0] for p in found], [p.points[-1][1] for p in found])
    paths = tuple(path._replace(front=on) for path, on in zip(found, front, strict=True))
    return PlaneInfo(bench, paths, float(wide[names.LABEL_ENTROPY].mean()))


def study(evidence: Evidence) -> Study:
    """Over epochs for each rung, and over β where there are several."""
    title = "Information plane"
    runs = _with_values(evidence.kept)
    swept = grid(evidence.finished, PARAMETER).kept
    swept = _with_values(swept) if len(swept) else swept
    if not len(runs) and not len(swept):
        what = "no run measured rate and cross-entropy with z drawn on validation"
        command = evidence.command(cfg="L1", seed=0)
        return Study("information_plane", evidence.bench, title, gaps=(Gap(what, command),))
    infos = [("rungs", _by_rung(evidence, runs))] if len(runs) else []
    beta = column(swept, f"params.{PARAMETER}")
    if beta.nunique() > 1:
        infos.append(("beta", _by_beta(evidence, swept)))
    gaps = () if beta.nunique() > 1 else (_sweep(evidence),)
    run_ids = dict.fromkeys([*runs["run_id"], *swept["run_id"]])
    return Study(
        "information_plane", evidence.bench, title,
        sentences=tuple(_sentence(info) for _, info in infos),
        tables=tuple(Table(f"End points over {kind}", block(info)) for kind, info in infos),
        drawings=tuple(
            Drawing(f"information_plane_{kind}_{info.bench}", draw(info), _caption(info))
            for kind, info in infos
        ),
        gaps=gaps,
        notes=("Both axes are bounds: the rate from above, H(Y) − CE from below.",),
        run_ids=tuple(run_ids),
    )  # fmt: skip


def _with_values(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[column(runs, f"metrics.{names.VAL_CE}").notna()]


def _sweep(evidence: Evidence) -> Gap:
    command = evidence.command(cfg="L1", seed=0, method__ib_beta="$beta")
    return Gap("only one β was measured", f"for beta in 1e-4 1e-3 1e-2; do {command}; done")


def _by_rung(evidence: Evidence, runs: pd.DataFrame) -> PlaneInfo:
    rung = runs.set_index("run_id")[RUNG_COLUMNS[1]]
    order = rung_order(rung.unique())
    labels = rung.sort_values(key=lambda names_: names_.map(order.index), kind="stable")
    return plane_info(labels, evidence.history(runs, METRICS), evidence.bench)


def _by_beta(evidence: Evidence, runs: pd.DataFrame) -> PlaneInfo:
    beta = runs.set_index("run_id")[f"params.{PARAMETER}"].astype(float).sort_values()
    labels = beta.map(lambda value: f"β = {value:g}")
    return plane_info(labels, evidence.history(runs, METRICS), evidence.bench)


def _sentence(info: PlaneInfo) -> str:
    best = max(info.paths, key=lambda path: path.points[-1][1])
    rate, kept = best.points[-1]
    front = ", ".join(path.label for path in info.paths if path.front)
    if kept <= 0:
        return (
            "No latent is shown to keep anything about the label: its cross-entropy is not below "
            f"H(Y) = {info.entropy:.2f} nats."
        )
    return (
        f"{best.label} keeps the most about the label: at least {kept:.2f} of {info.entropy:.2f} "
        f"nats at a rate of {rate:.2f} nats (n = {best.n}); Pareto front: {front}."
    )


def block(info: PlaneInfo) -> Block:
    """The last point of each path."""
    header = ("", "n", "rate R, nats", "H(Y) − CE, nats", "Pareto front")
    return Block(header, tuple(
        (p.label, str(p.n), number(p.points[-1][0], 3), number(p.points[-1][1], 3),
         "yes" if p.front else "no")
        for p in info.paths
    ))  # fmt: skip


def _caption(info: PlaneInfo) -> str:
    counts = seeds_caption((path.label, path.n) for path in info.paths)
    return (
        f"Means over seeds on validation images of {info.bench}, from the first A-Step epoch "
        f"measured (thin end) to the last (marker); {counts}. Dotted: H(Y); dashed: Pareto front "
        "of the last points."
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
        label = f"{path.label} (n = {path.n})"
        axes.plot(xs[-1], ys[-1], color=look.colour, marker=look.marker, linestyle="", label=label)
    ends = sorted(path.points[-1] for path in info.paths if path.front)
    axes.plot(*zip(*ends, strict=True), color=style.BOUNDARY, linestyle="--", linewidth=1, zorder=1)
    axes.axhline(info.entropy, color=style.BOUNDARY, linestyle=":", linewidth=1, zorder=0)
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
