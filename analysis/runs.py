"""Runs and metric histories of an MLflow store as data frames, and which runs count.

Values are as they were logged (units: `pipeline.names`); what was not logged is NaN.
"""

import difflib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline import names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from pandas.api.typing import NaTType

RUN_COLUMNS = ("run_id", "name", "status", "start_time", "end_time", "parent_id", "experiment")
HISTORY_COLUMNS = ("run_id", "metric", "step", "value", "timestamp")

_PAGE = 1000  # runs a request
_BULK_RUNS = 100  # the server takes no more runs in one history request …
_BULK_POINTS = 25_000  # … and cuts its answer here without a word
_BULK_ROUTE = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

Point = tuple[str, str, int, float, int]  # run_id, metric, step, value, timestamp in ms
Reader = Callable[[list[str], str], list[Point]]


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """The column, or one of NaN where no run of the frame logged such a thing."""
    return frame[name] if name in frame else pd.Series(np.nan, frame.index, name=name)


def load_runs(uri: str, experiment: str) -> pd.DataFrame:
    """Every run of an experiment that was not deleted, whatever its status, one row a run.

    Columns: `RUN_COLUMNS` (times in UTC), `params.<name>` and `tags.<name>` (text; MLflow's own
    tags are left out, the parent is `parent_id`), `metrics.<name>` (the last value). A run that
    was killed without notice still says RUNNING. `attrs` has the `experiment_id`.

    Raises ValueError where there is no such store or experiment.
    """
    client = _client(uri)
    experiment_id = _experiment_id(client, uri, experiment)
    rows = [_row(run, experiment) for run in _pages(client, experiment_id)]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(RUN_COLUMNS))
    frame.attrs["experiment_id"] = experiment_id
    return frame


def load_history(uri: str, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Values of the metrics at every step, tidy: `HISTORY_COLUMNS`, sorted by the first three.

    Of a step that was logged twice (a run that was resumed) the value with the later timestamp is
    kept; at one timestamp the larger value, which is MLflow's own rule. A metric that a run did
    not log has no rows. Raises ValueError where there is no such store.
    """
    read = _reader(_client(uri))
    ids = list(dict.fromkeys(run_ids))
    points = [
        point
        for metric in dict.fromkeys(metrics)
        for start in range(0, len(ids), _BULK_RUNS)
        for point in read(ids[start : start + _BULK_RUNS], metric)
    ]
    frame = pd.DataFrame(points, columns=list(HISTORY_COLUMNS))
    frame = frame.sort_values(["run_id", "metric", "step", "timestamp", "value"])
    frame = frame.drop_duplicates(["run_id", "metric", "step"], keep="last", ignore_index=True)
    types = {"step": "int64", "value": "float64"}
    times = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)
    return frame.astype(types).assign(timestamp=times)


def _client(uri: str) -> "MlflowClient":
    file = uri.removeprefix("sqlite:///").partition("?")[0]
    # MLflow would create the file that a mistyped address names.
    if file != uri and not Path(file).is_file():
        raise ValueError(f"no tracking store at {uri}: there is no file {file}")
    from mlflow import MlflowClient  # takes seconds: only where it is used

    return MlflowClient(tracking_uri=uri)


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "active":
        return found.experiment_id
    existing = [experiment.name for experiment in client.search_experiments()]
    near = difflib.get_close_matches(name, existing, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    deleted = " (it was deleted)" if found is not None else ""
    raise ValueError(
        f"no experiment {name!r} in {uri}{deleted}{hint}; there are: {', '.join(sorted(existing))}"
    )


def _pages(client: "MlflowClient", experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        # Oldest first: a run that starts between two pages does not shift the later ones.
        page = client.search_runs(
            [experiment_id],
            max_results=_PAGE,
            page_token=token,
            order_by=["attributes.start_time ASC"],
        )
        yield from page
        token = page.token
        if not token:
            return


def _row(run: Any, experiment: str) -> dict[str, Any]:
    info, tags = run.info, run.data.tags
    row = {
        "run_id": info.run_id,
        "name": info.run_name,
        "status": info.status,
        "start_time": _time(info.start_time),
        "end_time": _time(info.end_time),
        "parent_id": tags.get(names.PARENT),
        "experiment": experiment,
    }
    row |= {f"params.{key}": value for key, value in run.data.params.items()}
    row |= {f"tags.{key}": value for key, value in tags.items() if not key.startswith("mlflow.")}
    return row | {f"metrics.{key}": _logged(value) for key, value in run.data.metrics.items()}


def _time(milliseconds: int | None) -> "pd.Timestamp | NaTType":
    # A run without an end says None or 0, depending on the kind of store.
    return pd.to_datetime(milliseconds, unit="ms", utc=True) if milliseconds else pd.NaT


def _logged(value: float) -> float:
    # MLflow's SQL store keeps an infinity as the largest float.
    return float(np.copysign(np.inf, value)) if abs(value) >= sys.float_info.max else value


def _reader(client: "MlflowClient") -> Reader:
    """The fastest way that the store has; each gives the same points."""
    # Not public API: without it the last line still gives everything, run by run.
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if hasattr(store, "ManagedSessionMaker"):
        return lambda run_ids, metric: _sql_points(store, run_ids, metric)
    if hasattr(store, "get_host_creds"):
        return lambda run_ids, metric: _http_points(client, store, run_ids, metric)
    return lambda run_ids, metric: _client_points(client, run_ids, metric)


def _sql_points(store: Any, run_ids: list[str], metric: str) -> list[Point]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric as M

    # Columns alone: an object of MLflow's for every point takes many times as long.
    with store.ManagedSessionMaker() as session:
        query = session.query(M.run_uuid, M.key, M.step, M.value, M.timestamp, M.is_nan)
        found = query.filter(M.key == metric, M.run_uuid.in_(run_ids)).all()
    return [
        (run_id, key, step, math.nan if is_nan else _logged(value), timestamp)
        for run_id, key, step, value, timestamp, is_nan in found
    ]


def _http_points(client: Any, store: Any, run_ids: list[str], metric: str) -> list[Point]:
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    query = {"run_id": run_ids, "metric_key": metric, "max_results": _BULK_POINTS}
    answer = http_request(store.get_host_creds(), _BULK_ROUTE, "GET", params=query)
    if answer.status_code == 404:  # a server without this route
        return _client_points(client, run_ids, metric)
    found = verify_rest_response(answer, _BULK_ROUTE).json().get("metrics", [])
    if len(found) < _BULK_POINTS:
        return [_point(point) for point in found]
    if len(run_ids) == 1:
        return _client_points(client, run_ids, metric)
    half = len(run_ids) // 2
    parts = (run_ids[:half], run_ids[half:])
    return [point for part in parts for point in _http_points(client, store, part, metric)]


def _client_points(client: Any, run_ids: list[str], metric: str) -> list[Point]:
    return [
        (run_id, metric, point.step, _logged(point.value), point.timestamp)
        for run_id in run_ids
        for point in client.get_metric_history(run_id, metric)
    ]


def _point(found: dict[str, Any]) -> Point:
    return (
        found["run_id"],
        found["key"],
        found["step"],
        _logged(float(found["value"])),
        found["timestamp"],
    )


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
    runs: pd.DataFrame, *, stage: str, bench: str | None = None, needs: str = names.TEST_TOP1
) -> Selection:
    """The finished runs of a stage (and a bench) that logged a finite value of `needs`.

    A run key counts once: the original before one that was replayed (tag `reused`), then the one
    that started first. Reasons: failed, killed, running, no test value (no `needs` otherwise),
    duplicate key. Runs of other stages and benches are in neither frame.
    """
    asked = column(runs, f"tags.{names.STAGE}").eq(stage)
    if bench is not None:
        asked &= column(runs, f"tags.{names.BENCH}").eq(bench)
    frame = runs[asked]
    reason = frame["status"].map(_REASON_OF_STATUS).astype(object)
    value = column(frame, f"metrics.{needs}").astype(float)
    missing = "no test value" if needs == names.TEST_TOP1 else f"no {needs}"
    reason[reason.isna() & ~np.isfinite(value)] = missing
    good = frame[reason.isna()]
    reason[_repeated_keys(good)] = "duplicate key"
    return split(frame, reason)


def split(frame: pd.DataFrame, reason: pd.Series) -> Selection:
    """Rows without a reason are kept; the reasons become a column of the others."""
    out = reason.notna()
    return Selection(frame[~out].copy(), frame[out].assign(reason=reason[out].astype(str)))


def _repeated_keys(good: pd.DataFrame) -> pd.Index:
    key = column(good, f"tags.{names.RUN_KEY}")
    reused = column(good, f"tags.{names.REUSED}").eq("true")
    ranked = good.assign(_key=key, _reused=reused).sort_values(["_reused", "start_time", "run_id"])
    return ranked.index[ranked["_key"].notna() & ranked.duplicated("_key")]
