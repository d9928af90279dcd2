"""The ladder and its teachers as numbers; `analysis.render.text` writes them.

Accuracies and their differences are fractions, times seconds, memory MiB; missing is NaN.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import tags
from analysis.difference import DECIDES_FROM, difference
from analysis.runs import by_step, column
from analysis.selection.by_seed import images_of, logged_by_seed, tested_by_seed
from analysis.selection.configurations import CONFIGURATION, RUNG_COLUMNS
from analysis.selection.likeness import facts_by_rung, unlike
from analysis.stats import NO_INTERVAL, Interval, share_interval
from trainers import metrics

RUNG_ORDER = ("CE", "KD", "L0", "L1", "L2", "L3", "L4")
# Methods of the literature have small letters: `kd` is Hinton's with its own weights, `KD` the
# ladder's control, which is ASIB with everything but the teachers' average off; so are ce and CE.
METHOD_ORDER = ("ce", "kd", "fitnet", "at", "crd", "dkd", "dist", "kd_ls")
# `kd` is the tuned baseline; the others are plain ways to use several teachers, or none.
STACK = "stack"
CONTROLS = ("CE", "KD", "kd", "KD_conf", "self", STACK)
_NEXT_TO_KD = CONTROLS[3:]
UNFUSED = (
    *CONTROLS,
    "CE_matched",
    "CE_all",
    "KD_null",
)  # of ASIB's rungs those without a fusion module
A_STEP, B_STEP = 0.0, 1.0  # values of stage/step

# Read epoch by epoch for the table: their last values alone would mislead.
EPOCH_METRICS = (metrics.IMAGES_PER_SECOND, metrics.PEAK_MEMORY, metrics.STAGE_STEP)


class LadderRow(NamedTuple):
    """A rung on a bench. Numbers after the intervals are means over the seeds that have them."""

    bench: str
    rung: str
    seeds: tuple[int, ...]
    test: Interval
    vs_ce: Interval
    vs_kd: Interval
    synergy: float  # validation accuracy of the fusion module that the last B-Step used
    gain: float  # of that over the best teacher
    seconds: float  # all epochs of both steps, and the banks
    times_ce: float  # CE's seconds, over the seeds that both have
    images_per_second: float  # in B-Steps
    peak_memory_mb: float
    configuration: str = ""  # which one it is, where the rung ran in several
    share: float = math.nan  # of the last B-Step's samples, those whose target came from the fusion
    gain_student: float = math.nan  # of the fusion over the student that asks
    as_loaded: bool = True  # whether the gain is over the teacher as loaded, not as it was by then
    test_error: float = math.nan  # standard error of the mean accuracy that the test images leave


class LadderTable(NamedTuple):
    """Rows in the order of benches and rungs; `level` is that of every interval."""

    rows: tuple[LadderRow, ...]
    level: float


class TeacherRow(NamedTuple):
    """A fine-tuned teacher; `selected` tells a selected epoch's accuracy from the last one's."""

    bench: str
    model: str
    seed: int | None
    validation: float
    selected: bool
    test: float
    seconds: float
    overlap: str | None = None  # percent of the classes in common, of specialised teachers
    some_classes: bool = False  # whether it was trained on some classes only
    images: str | None = None  # how many it was trained on, where that was limited


def ladder_table(kept: pd.DataFrame, level: float = 0.95) -> LadderTable:
    """One row for each bench and rung of runs that `one_configuration` kept.

    Every seed counts once. Speed and memory come from `with_epoch_costs` where it was applied,
    else they are the last values logged. Raises ValueError where a test accuracy is not finite
    (`select` leaves such runs out).
    """
    rows = []
    for bench in sorted(column(kept, RUNG_COLUMNS[0]).dropna().unique()):
        whole = kept[kept[RUNG_COLUMNS[0]] == bench]
        on_bench = whole[[name for name in whole if not str(name).startswith("params.")]]
        against = _differences(whole, bench, level)
        rungs = rung_order(on_bench[RUNG_COLUMNS[1]].dropna().unique())
        images = images_of(on_bench)
        rows += [_row(on_bench, bench, rung, against, images, level) for rung in rungs]
    return LadderTable(tuple(rows), level)


def _differences(
    on_bench: pd.DataFrame, bench: str, level: float
) -> Callable[[str, str], Interval]:
    """The difference of two rungs of a bench; none where they differ in more than the method."""
    facts, images = facts_by_rung(on_bench, bench), images_of(on_bench)
    tested = {rung: tested_by_seed(on_bench, bench, rung) for rung in facts}

    def against(rung: str, control: str) -> Interval:
        if rung == control or control not in facts or unlike(facts[rung], facts[control]):
            return NO_INTERVAL
        return difference(tested[rung], tested[control], images).at(level)

    return against


def label_of(rung: str) -> str:
    """The label of a rung or method in tables and figures: `kd (method)` for the method that only
    its small letters tell from the rung KD."""
    return f"{rung} (method)" if rung in METHOD_ORDER and rung.upper() in RUNG_ORDER else rung


def rung_order(rungs) -> list[str]:
    """The ladder from CE to L4, with plain controls next to KD, then its side branches by name,
    then the methods of the literature from the oldest, then what is of one's own by name."""
    present = set(rungs)
    ordered = (*RUNG_ORDER[:2], *_NEXT_TO_KD, *RUNG_ORDER[2:])
    known = [rung for rung in ordered if rung in present]
    methods = [name for name in METHOD_ORDER if name in present]
    others = sorted(present - set(known) - set(methods))
    ladder = [rung for rung in others if is_rung(rung)]
    return [*known, *ladder, *methods, *(rung for rung in others if rung not in ladder)]


def is_rung(name: str) -> bool:
    """Whether it is a rung of ASIB's ladder or a side branch, not a method of the literature."""
    return name[:1].isupper() or name.startswith("side_") or name in _NEXT_TO_KD


def of_asib(kept: pd.DataFrame) -> pd.DataFrame:
    """The runs of ASIB's rungs and its controls: by the tag of their method, by the name of their
    rung where they have no such tag."""
    method = column(kept, f"tags.{tags.METHOD}")
    named = column(kept, RUNG_COLUMNS[1]).map(lambda rung: is_rung(str(rung))).astype(bool)
    return kept[method.eq("asib").where(method.notna(), named).astype(bool)]


def fused(kept: pd.DataFrame) -> pd.DataFrame:
    """The runs of ASIB's rungs that have a fusion module, so not those of its controls."""
    asib = of_asib(kept)
    return asib[~column(asib, RUNG_COLUMNS[1]).isin(UNFUSED)]


def with_epoch_costs(kept: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """The runs with images/s as the median of their B-Step epochs and memory as the maximum.

    `history` holds `EPOCH_METRICS` as `load_history` gives them; a run that logs no steps, as a
    teacher's, has B-Steps alone. The last epoch alone would flatter distillation: at the end of its
    cooldown nothing but cross-entropy is computed.
    """
    wide = by_step(history)
    b_steps = wide[column(wide, metrics.STAGE_STEP).fillna(B_STEP).eq(B_STEP)]
    speed = column(b_steps, metrics.IMAGES_PER_SECOND).groupby("run_id").median()
    memory = column(wide, metrics.PEAK_MEMORY).groupby("run_id").max()
    result = kept.copy()
    for name, per_run in ((metrics.IMAGES_PER_SECOND, speed), (metrics.PEAK_MEMORY, memory)):
        logged = column(kept, f"metrics.{name}").astype(float)
        result[f"metrics.{name}"] = kept["run_id"].map(per_run).astype(float).fillna(logged)
    return result


def best_control(kept: pd.DataFrame, bench: str) -> str:
    """The control with the highest mean validation accuracy over the seeds that those share which
    have enough of them to decide (the earlier of equals, or where no validation was logged); ""
    without a control. The test split has no part in it."""
    by_control = {
        rung: {seed: value for seed, value in of.items() if math.isfinite(value)}
        for rung in CONTROLS
        if (of := logged_by_seed(kept, bench, rung, metrics.BEST_VAL_TOP1))
    }
    able = {rung: of for rung, of in by_control.items() if len(of) >= DECIDES_FROM}
    able = able or {rung: of for rung, of in by_control.items() if of}
    if not able:
        return next(iter(by_control), "")
    common = set.intersection(*map(set, able.values()))
    if not common:
        return max(able, key=lambda rung: len(able[rung]))
    return max(able, key=lambda rung: float(np.mean([able[rung][seed] for seed in common])))


def _row(
    on_bench: pd.DataFrame,
    bench: str,
    rung: str,
    against: Callable[[str, str], Interval],
    images: int | None,
    level: float,
) -> LadderRow:
    of_rung = on_bench[on_bench[RUNG_COLUMNS[1]] == rung]
    by_seed = logged_by_seed(on_bench, bench, rung)
    mean = float(np.mean(list(by_seed.values()))) if by_seed else math.nan
    seconds = logged_by_seed(on_bench, bench, rung, metrics.RUN_SECONDS)
    of_ce = logged_by_seed(on_bench, bench, "CE", metrics.RUN_SECONDS)
    gain, as_loaded = _gain(of_rung)
    return LadderRow(
        bench=bench,
        rung=rung,
        seeds=tuple(sorted(by_seed)),
        test=share_interval(list(by_seed.values()), level),
        vs_ce=against(rung, "CE"),
        vs_kd=against(rung, "KD"),
        synergy=mean_logged(of_rung, metrics.SYNERGY_RESTORED),
        gain=gain,
        seconds=mean_logged(of_rung, metrics.RUN_SECONDS),
        times_ce=paired_ratio(seconds, of_ce),
        images_per_second=mean_logged(of_rung, metrics.IMAGES_PER_SECOND),
        peak_memory_mb=mean_logged(of_rung, metrics.PEAK_MEMORY),
        configuration=next(iter(column(of_rung, CONFIGURATION).dropna()), ""),
        share=mean_logged(of_rung, metrics.SYNERGY_SHARE),
        gain_student=mean_logged(of_rung, metrics.SYNERGY_GAIN_STUDENT),
        as_loaded=as_loaded,
        test_error=math.sqrt(mean * (1 - mean) / images) if images else math.nan,
    )


def _gain(of_rung: pd.DataFrame) -> tuple[float, bool]:
    """The fusion's mean gain over the best teacher as it was loaded, so that a teacher that lost
    by its adaptation makes no gain; where a run lacks that, over the teachers as they were by
    then. And whether it is the first: the two are never in one mean."""
    logged = (f"metrics.{one}" for one in (metrics.SYNERGY_GAIN, metrics.SYNERGY_GAIN_ORIGINAL))
    now, loaded = (np.isfinite(column(of_rung, one).astype(float)) for one in logged)
    as_loaded = not (now & ~loaded).any()
    metric = metrics.SYNERGY_GAIN_ORIGINAL if as_loaded else metrics.SYNERGY_GAIN
    return mean_logged(of_rung, metric), as_loaded


def mean_logged(runs: pd.DataFrame, metric: str) -> float:
    """Mean of the finite values of a metric, NaN where no run has one."""
    values = column(runs, f"metrics.{metric}").astype(float)
    return float(values[np.isfinite(values)].mean())


def ratio(a: float, b: float) -> float:
    """a / b, NaN where b is 0 or one of them is missing."""
    return a / b if b else math.nan


def paired_ratio(a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float]) -> float:
    """The mean of a over that of b on the seeds that have both: a machine that was busier at one
    seed weighs on both. NaN where they share none."""
    common = [
        seed
        for seed in a_by_seed.keys() & b_by_seed.keys()
        if math.isfinite(a_by_seed[seed] + b_by_seed[seed])
    ]
    return ratio(sum(a_by_seed[seed] for seed in common), sum(b_by_seed[seed] for seed in common))


def teachers_table(kept: pd.DataFrame) -> tuple[TeacherRow, ...]:
    """One row a fine-tuning run, by bench, model and seed.

    The validation accuracy is that of the selected epoch, or of the last one where no selected
    one was logged.
    """
    rows = [_teacher(run) for _, run in kept.iterrows()]
    return tuple(sorted(rows, key=lambda row: (row.bench, row.model, row.seed or 0)))


def _teacher(run: pd.Series) -> TeacherRow:
    def tag(name: str) -> str | None:
        value = run.get(f"tags.{name}")
        return value if isinstance(value, str) else None

    def param(name: str) -> str | None:
        value = run.get(f"params.{name}")
        return value if isinstance(value, str) and value != "None" else None

    def metric(name: str) -> float:
        return float(run.get(f"metrics.{name}", math.nan))

    seed = tag(tags.SEED)
    best = metric(metrics.BEST_VAL_TOP1)
    selected = math.isfinite(best)
    return TeacherRow(
        bench=tag(tags.BENCH) or "",
        model=tag(tags.TEACHERS) or tag(tags.STUDENT) or str(run["name"]),
        seed=int(seed) if seed is not None and seed.isdecimal() else None,
        validation=best if selected else metric(metrics.VAL_TOP1),
        selected=selected,
        test=metric(metrics.TEST_TOP1),
        seconds=metric(metrics.RUN_SECONDS),
        overlap=tag(tags.OVERLAP),
        some_classes=param("teacher.0.classes") is not None,
        images=param("data.train_limit"),
    )


def table_frame(table: LadderTable) -> pd.DataFrame:
    """The ladder with one column a number, intervals as `<name>_n _mean _low _high`."""
    columns = [name for field in LadderRow._fields for name in _columns(field)]
    return pd.DataFrame([_flat(row) for row in table.rows], columns=columns)


_INTERVALS = ("test", "vs_ce", "vs_kd")


def _columns(field: str) -> list[str]:
    return [f"{field}_{part}" for part in Interval._fields] if field in _INTERVALS else [field]


def _flat(row: LadderRow) -> dict[str, object]:
    flat: dict[str, object] = {}
    for field, value in row._asdict().items():
        if field == "seeds":
            value = " ".join(map(str, value))
        parts = value if isinstance(value, Interval) else (value,)
        flat |= dict(zip(_columns(field), parts, strict=True))
    return flat
