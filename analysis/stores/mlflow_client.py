"""An MLflow store behind a server, or of any other kind that MLflow has a client for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from analysis.stores.address import redacted
from analysis.stores.protocol import Experiment, Points, RunInfo, RunRows

_KINDS = "its address begins with sqlite:///, postgresql://, http:// or https://"
_PAGE = 1000  # runs a request
_BULK_RUNS = 100  # the server takes no more runs in one history request …
_BULK_POINTS = 25_000  # … and cuts its answer here without a word
_BULK_ROUTE = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_SEARCH_ROUTE = "/api/2.0/mlflow/runs/search"
# Oldest first: a run that starts between two pages does not shift the later ones.
_ORDER = ["attributes.start_time ASC"]


class NoAnswer(ConnectionError, ValueError):
    """The store is not there, or does not answer."""


class ClientStore:
    """Through MLflow's client; its methods are those of `analysis.stores.protocol.StoreReader`."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient  # takes seconds: only where it is used
        from mlflow.exceptions import MlflowException

        self._address = redacted(uri)
        try:
            self.client: MlflowClient = MlflowClient(tracking_uri=uri)
        except MlflowException as error:
            raise ValueError(f"no tracking store at {self._address}: {_KINDS}") from error

    def experiments(self) -> list[Experiment]:
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        def page(token: str | None) -> tuple[Any, str | None]:
            try:
                found = self.client.search_experiments(ViewType.ALL, _PAGE, page_token=token)
            except MlflowException as error:
                raise self._silent() from error
            return found, found.token

        return [
            Experiment(one.experiment_id, one.name, one.lifecycle_stage == "active")
            for one in _pages(page)
        ]

    def _silent(self) -> NoAnswer:
        return NoAnswer(
            f"the tracking store at {self._address} does not answer: is the server up, and "
            "MLFLOW_TRACKING_URI right?"
        )

    def runs(self, experiment_id: str) -> RunRows:
        found = RunRows([], [], [], [])
        for run in _pages(lambda token: self._search(experiment_id, token)):
            info, data = run.info, run.data
            of_run = info.run_id, info.run_name, info.status, info.start_time, info.end_time
            found.infos.append(RunInfo(*of_run))
            found.params.extend((info.run_id, *pair) for pair in data.params.items())
            found.tags.extend((info.run_id, *pair) for pair in data.tags.items())
            found.metrics.extend((info.run_id, *pair) for pair in data.metrics.items())
        return found

    def _search(self, experiment_id: str, token: str | None) -> tuple[Any, str | None]:
        found = self.client.search_runs(
            [experiment_id], max_results=_PAGE, page_token=token, order_by=_ORDER
        )
        return found, found.token

    def points(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[Points]:
        for metric in metrics:
            for run_id in run_ids:
                found = self.client.get_metric_history(run_id, metric)
                of_points = [(point.step, point.value, point.timestamp) for point in found]
                yield _points([(run_id, metric, *one) for one in of_points])


class ServerStore(ClientStore):
    """Over HTTP: the server's own JSON, since MLflow's objects take longer than the request."""

    def runs(self, experiment_id: str) -> RunRows:
        found = RunRows([], [], [], [])
        for run in _pages(lambda token: self._answer(experiment_id, token)):
            info, data = run["info"], run["data"]
            run_id, times = info["run_id"], (info.get("start_time"), info.get("end_time"))
            start, end = (None if time is None else int(time) for time in times)
            found.infos.append(RunInfo(run_id, info.get("run_name"), info["status"], start, end))
            found.params.extend((run_id, *_pair(one)) for one in data.get("params", ()))
            found.tags.extend((run_id, *_pair(one)) for one in data.get("tags", ()))
            found.metrics.extend(
                (run_id, one["key"], float(one["value"])) for one in data.get("metrics", ())
            )
        return found

    def _answer(self, experiment_id: str, token: str | None) -> tuple[list[Any], str | None]:
        body = {"experiment_ids": [experiment_id], "max_results": _PAGE, "order_by": _ORDER}
        found = self._json(
            "POST", _SEARCH_ROUTE, json=body | ({"page_token": token} if token else {})
        )
        assert found is not None, "every server can search"
        return found.get("runs", []), found.get("next_page_token")

    def points(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[Points]:
        for metric in metrics:
            for start in range(0, len(run_ids), _BULK_RUNS):
                yield from self._bulk(run_ids[start : start + _BULK_RUNS], metric)

    def _bulk(self, run_ids: Sequence[str], metric: str) -> Iterator[Points]:
        body = {"run_id": run_ids, "metric_key": metric, "max_results": _BULK_POINTS}
        answer = self._json("GET", _BULK_ROUTE, params=body)
        found = [] if answer is None else answer.get("metrics", [])
        if answer is None or (len(found) >= _BULK_POINTS and len(run_ids) == 1):
            yield from super().points(run_ids, [metric])
        elif len(found) >= _BULK_POINTS:
            half = len(run_ids) // 2
            yield from self._bulk(run_ids[:half], metric)
            yield from self._bulk(run_ids[half:], metric)
        else:
            fields = ("run_id", "key", "step", "value", "timestamp")
            yield _points([tuple(point[name] for name in fields) for point in found])

    def _json(self, method: str, route: str, **body: Any) -> dict[str, Any] | None:
        """The server's answer, with the user's credentials; None for a route it does not have."""
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        store: Any = self.client._tracking_client.store
        try:
            answer = http_request(store.get_host_creds(), route, method, **body)
        except MlflowException as error:  # no connection; what a server answers is looked at below
            raise self._silent() from error
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = verify_rest_response(answer, route).json()
        return found


def _pages(page: Callable[[str | None], tuple[Any, str | None]]) -> Iterator[Any]:
    """All that is on the pages; `page(token)` gives one and the token of the next."""
    token = None
    while True:
        found, token = page(token)
        yield from found
        if not token:
            return


def _pair(one: dict[str, str]) -> tuple[str, str]:
    return one["key"], one.get("value", "")


def _points(rows: list[tuple]) -> Points:
    runs, metrics, steps, values, times = zip(*rows, strict=True) if rows else ((),) * 5
    return Points(
        runs,
        metrics,
        [int(step) for step in steps],
        [float(value) for value in values],
        [int(time) for time in times],
    )
