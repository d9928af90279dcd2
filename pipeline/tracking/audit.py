"""Comparison of a tracking store with the local store, value by value.

The run folder, or the record of a run without one, is the truth. What a tracked run lacks is sent.
A run with a value that the store does not have (two processes sent it, or an epoch was trained
again) is made again, since MLflow cannot delete single values.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from analysis.stores.protocol import RunInfo, RunRows, StoreReader
from pipeline.outcome import FAILED, FINISHED, KILLED
from pipeline.storage.run_record import HistoryEntry, RunResult, RunSpec
from trainers import metrics

RIGHT, LACKS, WRONG = "right", "lacks", "wrong"
_ADDED = ("system/",)  # metrics that are logged next to the run's own
_TOLERANCE = 1e-12  # databases other than SQLite may round the last bit


@dataclass
class TrackedRun:
    """A run as a tracking store has it."""

    info: RunInfo
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))


def tracked_runs(
    store: StoreReader, experiment_id: str, wanted: set[str], rows: RunRows | None = None
) -> dict[str, TrackedRun]:
    """These runs of an experiment, by id, with all values of all metrics; `rows` are its runs,
    where they have been read."""
    rows = rows or store.runs(experiment_id)
    found = {info.run_id: TrackedRun(info) for info in rows.infos if info.run_id in wanted}
    for run_id, name, text in rows.params:
        if run_id in found:
            found[run_id].params[name] = text
    for run_id, name, text in rows.tags:
        if run_id in found:
            found[run_id].tags[name] = text
    names = sorted({name for run_id, name, _ in rows.metrics if run_id in found})
    for part in store.points(list(found), names) if found and names else ():
        columns = (part.run_ids, part.metrics, part.steps, part.values)
        for run_id, name, step, value in zip(*columns, strict=True):
            found[run_id].points[name, step].append(float(value))
    return found


def deleted_experiments(store: StoreReader) -> set[str]:
    """The experiments that were deleted, by name and by "#" and id."""
    every = store.experiments()
    active = {one.name for one in every if one.active}
    gone = [one for one in every if not one.active]
    return {one.name for one in gone} - active | {f"#{one.experiment_id}" for one in gone}


@dataclass(frozen=True)
class Expected:
    """What a run should be: values by metric and step, parameters, tags, one of some statuses, and
    the time in ms of its end (None: any)."""

    points: dict[tuple[str, int], float]
    params: dict[str, str]
    tags: dict[str, str]
    statuses: tuple[str, ...]
    end_ms: int | None = None


def judged(
    run: TrackedRun,
    spec: RunSpec,
    result: RunResult | None,
    history: list[HistoryEntry],
    reads: int = 0,
) -> str:
    """Whether a tracked stage run is right, lacks something, or has something wrong. `history` are
    the stored epochs of a run without a result; no process trains it. `reads`: how often its test
    split was read; evaluations on other machines may have counted more."""
    points = dict(_points(history if result is None else result.history))
    if result is None:
        return compared(run, Expected(points, spec.params, spec.tags, (FAILED, KILLED)))
    last = max((entry["index"] for entry in result.history), default=0)
    for name, value in result.metrics.items():
        points.setdefault((name, last), value)
    every = spec.tags | result.tags
    kind = compared(run, Expected(points, spec.params, every, (FINISHED,), result.time))
    counted = [max(v) for (name, _), v in run.points.items() if name == metrics.TEST_READS]
    return LACKS if kind == RIGHT and max(counted, default=0) < reads else kind


def compared(run: TrackedRun, expected: Expected, *, points: bool = True) -> str:
    """Whether a tracked run is right, lacks something, or has something wrong; `points`: its
    metrics too."""
    if (points and _wrong(run, expected.points)) or any(
        run.params.get(name, text) != text for name, text in expected.params.items()
    ):
        return WRONG
    complete = (
        expected.points.keys() <= run.points.keys()
        and expected.params.keys() <= run.params.keys()
        and all(run.tags.get(name) == text for name, text in expected.tags.items())
        and run.info.status in expected.statuses
        and expected.end_ms in (None, run.info.end_ms)
    )
    return RIGHT if complete else LACKS


def _wrong(run: TrackedRun, expected: dict[tuple[str, int], float]) -> bool:
    for (name, step), values in run.points.items():
        if name.startswith(_ADDED) or name == metrics.TEST_READS:
            continue  # `evaluate` counts its readings there
        known = expected.get((name, step))
        if known is None or not all(_same(value, known) for value in values) or len(values) > 1:
            return True
    return False


def _points(history: Iterable[HistoryEntry]) -> Iterable[tuple[tuple[str, int], float]]:
    for entry in history:
        for name, value in entry["metrics"].items():
            yield (name, entry["index"]), float(value)


def _same(stored: Any, known: float) -> bool:
    """Equality as MLflow stores numbers: infinities as the largest float."""
    if math.isnan(known) or math.isnan(stored):
        return math.isnan(known) and math.isnan(stored)
    largest = sys.float_info.max
    return math.isclose(
        max(-largest, min(largest, stored)),
        max(-largest, min(largest, known)),
        rel_tol=_TOLERANCE,
        abs_tol=0.0,
    )
