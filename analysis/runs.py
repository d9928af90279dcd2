"""Runs and metric histories of an MLflow store as data frames, and which runs count.

Values are as they were logged (units: `analysis.tags`); what was not logged is NaN.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import tags
from analysis.stores import archive
from analysis.stores.address import redacted
from analysis.stores.mlflow_client import ClientStore, ServerStore
from analysis.stores.protocol import Experiment, Points, RunRows, StoreReader
from analysis.stores.sql import SCHEMES, SqlStore
from analysis.suggest import nearest
from trainers import metrics

RUN_COLUMNS = ("run_id", "name", "status", "start_time", "end_time", "parent_id", "experiment")
HISTORY_COLUMNS = ("run_id", "metric", "step", "value", "timestamp")


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """The column, or one of NaN where no run of the frame logged such a thing."""
    return frame[name] if name in frame else pd.Series(np.nan, frame.index, name=name)


def exported_experiment(path: str) -> str:
    """The experiment in a file that `export` made.

    Raises ValueError where the file is not there, or is not such a file.
    """
    if not path.endswith(archive.SUFFIX):
        hint = "; a tracking store is named by MLFLOW_TRACKING_URI" if "://" in path else ""
        raise ValueError(
            f"store={redacted(path)}: not a file NAME{archive.SUFFIX} as export writes it{hint}"
        )
    (only,) = archive.opened(path).experiments()
    return only.name


def load_runs(uri: str, experiment: str) -> pd.DataFrame:
    """Every run of an experiment that was not deleted, whatever its status, one row a run, the
    oldest first.

    Columns: `RUN_COLUMNS` (times in UTC), then by name `params.<name>` and `tags.<name>` (text;
    MLflow's own tags are left out, the parent is `parent_id`) and `metrics.<name>` (the last
    value). A run that was killed without notice still says RUNNING. `attrs` has the
    `experiment_id`.

    Raises ValueError where there is no such store or experiment.
    """
    store = opened(uri)
    experiment_id = _experiment_id(store, uri, experiment)
    found = store.runs(experiment_id)
    row_of = {info.run_id: row for row, info in enumerate(found.infos)}
    run_tags = _columns("tags.", found.tags, row_of, object)
    parent = run_tags.get(f"tags.{tags.PARENT}", [None] * len(row_of))
    frame = pd.DataFrame(
        {
            "run_id": list(row_of),
            "name": [info.name for info in found.infos],
            "status": [info.status for info in found.infos],
            "start_time": _times(info.start_ms for info in found.infos),
            "end_time": _times(info.end_ms for info in found.infos),
            "parent_id": parent,
            "experiment": experiment,
        }
        | _columns("params.", found.params, row_of, object)
        | {name: values for name, values in run_tags.items() if not name.startswith("tags.mlflow.")}
        | _columns("metrics.", found.metrics, row_of, float)
    )
    frame.attrs["experiment_id"] = experiment_id
    return frame


def export(uri: str, experiment: str, run_ids: Sequence[str], metrics: Sequence[str]) -> bytes:
    """Runs of an experiment with the histories of these metrics, as a file that is read back in
    the place of a store: `load_runs("study.db.xz", experiment)`.

    Raises ValueError where there is no such store or experiment.
    """
    store, wanted = opened(uri), set(run_ids)
    number = _experiment_id(store, uri, experiment)
    found = store.runs(number)
    some = RunRows(
        [info for info in found.infos if info.run_id in wanted],
        [row for row in found.params if row[0] in wanted],
        [row for row in found.tags if row[0] in wanted],
        [row for row in found.metrics if row[0] in wanted],
    )
    history = load_history(uri, run_ids, metrics)
    return archive.packed(Experiment(number, experiment, True), some, history)


def load_history(uri: str, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Values of the metrics at every step, tidy: `HISTORY_COLUMNS`, sorted by the first three;
    run ids and metrics are categories, of all that were requested.

    Of a step that was logged twice (a run that was resumed) the value with the later timestamp is
    kept; at one timestamp the larger value, which is MLflow's own rule. A metric that a run did
    not log has no rows. Raises ValueError where there is no such store.
    """
    runs, wanted = sorted(set(run_ids)), sorted(set(metrics))
    # The store must exist, also where nothing is read of it.
    found = opened(uri).points(runs, wanted)
    return _tidy(_arrays(found if runs and wanted else (), runs, wanted), runs, wanted)


def by_step(history: pd.DataFrame) -> pd.DataFrame:
    """A row for each run and step (index `run_id`, `step`, sorted), a column a metric, NaN where
    it was not logged or is infinite."""
    wide = history.pivot(index=["run_id", "step"], columns="metric", values="value")
    return wide.sort_index().replace([np.inf, -np.inf], np.nan)


class _Arrays(NamedTuple):
    """Points as arrays; runs and metrics as indices into the requested ones."""

    run: np.ndarray
    metric: np.ndarray
    step: np.ndarray
    value: np.ndarray
    time: np.ndarray


def _arrays(found: Iterable[Points], runs: list[str], metrics: list[str]) -> _Arrays:
    run_of, metric_of = ({name: k for k, name in enumerate(all_)} for all_ in (runs, metrics))
    types = (np.int32, np.int32, np.int64, np.float64, np.int64)
    parts = [tuple(np.empty(0, kind) for kind in types)]
    for points in found:
        columns = (
            map(run_of.__getitem__, points.run_ids),
            map(metric_of.__getitem__, points.metrics),
            points.steps,
            points.values,
            points.times,
        )
        size = len(points.steps)
        parts.append(
            tuple(np.fromiter(c, kind, size) for c, kind in zip(columns, types, strict=True))
        )
    return _Arrays(*(np.concatenate(same) for same in zip(*parts, strict=True)))


def _tidy(found: _Arrays, runs: list[str], metrics: list[str]) -> pd.DataFrame:
    value = _logged(found.value)
    order = np.lexsort((value, found.time, found.step, found.metric, found.run))
    run, metric, step = (array[order] for array in (found.run, found.metric, found.step))
    same = [array[1:] == array[:-1] for array in (run, metric, step)]
    last = np.append(~np.logical_and.reduce(same), True)[: len(order)]
    return pd.DataFrame(
        {
            "run_id": pd.Categorical.from_codes(run[last], pd.Index(runs, dtype=str)),
            "metric": pd.Categorical.from_codes(metric[last], pd.Index(metrics, dtype=str)),
            "step": step[last],
            "value": value[order][last],
            "timestamp": pd.to_datetime(found.time[order][last], unit="ms", utc=True),
        }
    )


def opened(uri: str) -> StoreReader:
    """The fastest way to read that the store has; each gives the same rows."""
    if uri.endswith(archive.SUFFIX):
        return archive.opened(uri)
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in SCHEMES:
        return SqlStore.at(uri)
    return ServerStore(uri) if scheme in ("http", "https") else ClientStore(uri)


def _experiment_id(store: StoreReader, uri: str, name: str) -> str:
    all_ = store.experiments()
    named = [one for one in all_ if one.name == name]
    active = [one for one in named if one.active]
    if len(active) == 1:
        return active[0].experiment_id
    if active:
        raise ValueError(f"{len(active)} workspaces have an experiment {name!r}: ask their server")
    existing = sorted(one.name for one in all_ if one.active)
    deleted = " (it was deleted)" if named else ""
    raise ValueError(
        f"no experiment {name!r} in {uri}{deleted}{nearest(name, existing)} "
        f"(experiment=NAME chooses one of: {', '.join(existing)})"
    )


def _columns(
    prefix: str, found: Iterable[tuple[str, str, Any]], row_of: dict[str, int], kind: type
) -> dict[str, Any]:
    """By name, sorted: the value of each run, missing where it has none."""
    by_name: dict[str, Any] = {}
    missing = np.nan if kind is float else None
    for run_id, name, value in found:
        if name not in by_name:
            by_name[name] = np.full(len(row_of), missing, kind)
        by_name[name][row_of[run_id]] = value
    convert = _logged if kind is float else list
    return {prefix + name: convert(by_name[name]) for name in sorted(by_name)}


def _times(milliseconds: Iterable[int | None]) -> "pd.Series[pd.Timestamp]":
    # A run without an end says None or 0, depending on the kind of store.
    known = [one if one else pd.NaT for one in milliseconds]
    return pd.to_datetime(pd.Series(known, dtype=object), unit="ms", utc=True)


def _logged(values: np.ndarray) -> np.ndarray:
    # MLflow's SQL store keeps an infinity as the largest float.
    return np.where(np.abs(values) >= sys.float_info.max, np.copysign(np.inf, values), values)


class Selection(NamedTuple):
    """The runs that count, and those that do not with the reason in a column `reason`."""

    kept: pd.DataFrame
    left_out: pd.DataFrame


_REASON_OF_STATUS = {
    "FAILED": "failed",
    "KILLED": "killed",
    "RUNNING": "running",
    "SCHEDULED": "running",
}


def select(
    runs: pd.DataFrame, *, stage: str, bench: str | None = None, needs: str = metrics.TEST_TOP1
) -> Selection:
    """The finished runs of a stage (and a bench) that logged a finite value of `needs`, of a share
    one between 0 and 1.

    A run key counts once: the original before one that was replayed (tag `reused`), then the one
    that started first. Reasons: failed, killed, running, no test value (no `needs` otherwise),
    a value that is no share, duplicate key. Runs of other stages and benches are in neither frame.
    """
    wanted = column(runs, f"tags.{tags.STAGE}").eq(stage)
    if bench is not None:
        wanted &= column(runs, f"tags.{tags.BENCH}").eq(bench)
    frame = runs[wanted]
    reason = frame["status"].map(_REASON_OF_STATUS).astype(object)
    value = column(frame, f"metrics.{needs}").astype(float)
    missing = "no test value" if needs == metrics.TEST_TOP1 else f"no {needs}"
    reason[reason.isna() & ~np.isfinite(value)] = missing
    if metrics.METRICS[needs].unit == "share":
        impossible = reason.isna() & ~value.between(0.0, 1.0)
        reason[impossible] = f"{needs} is no share"
    good = frame[reason.isna()]
    reason[_repeated_keys(good)] = "duplicate key"
    return split(frame, reason)


def split(frame: pd.DataFrame, reason: pd.Series) -> Selection:
    """Rows without a reason are kept; the reasons become a column of the others."""
    out = reason.notna()
    return Selection(frame[~out].copy(), frame[out].assign(reason=reason[out].astype(str)))


def _repeated_keys(good: pd.DataFrame) -> pd.Index:
    key = column(good, f"tags.{tags.RUN_KEY}")
    reused = column(good, f"tags.{tags.REUSED}").eq("true")
    ranked = good.assign(_key=key, _reused=reused).sort_values(["_reused", "start_time", "run_id"])
    return ranked.index[ranked["_key"].notna() & ranked.duplicated("_key")]
