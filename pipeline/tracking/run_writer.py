"""Writes to one run of a tracking store, each followed by a look whether it was kept: a gateway
accepts everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.tracking.creation import BadAnswer, run_id_of
from pipeline.tracking.values import log_data

METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 5000


class RunWriter:
    """One run; `client` gives MLflow's client, or raises where nothing may be sent any more.

    Every call raises BadAnswer where what was accepted is not in the store.
    """

    def __init__(self, client: Callable[[], Any], run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def run(self) -> Any:
        """The run as the store has it."""
        found = self._client().get_run(self.run_id)
        run_id_of(found, self.run_id)
        return found

    def description(
        self, params: Mapping[str, Any], data: dict[str, str], use: str = "training"
    ) -> None:
        """Parameters, and the data set (name, digest), if any, with its use."""
        from mlflow.entities import Param

        texts = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
        listed = [Param(key, value) for key, value in texts.items()]
        for at in range(0, len(listed), PARAMS_A_CALL):
            self._client().log_batch(self.run_id, params=listed[at : at + PARAMS_A_CALL])
        if data:
            log_data(self._client(), self.run_id, data, use)
        kept = self.run()
        if texts.keys() - kept.data.params.keys() or (data and not kept.inputs.dataset_inputs):
            raise BadAnswer("parameters that were accepted are not in the tracking store")

    def lacking(self, points: list[Any]) -> list[Any]:
        """The points of metrics that have not arrived."""
        there = {
            (key, metric.step)
            for key in {point.key for point in points}
            for metric in self._client().get_metric_history(self.run_id, key)
        }
        return [point for point in points if (point.key, point.step) not in there]

    def metrics(self, points: list[Any]) -> None:
        """Points of metrics, none of which have arrived."""
        for at in range(0, len(points), METRICS_A_CALL):
            part = points[at : at + METRICS_A_CALL]
            self._client().log_batch(self.run_id, metrics=part)
            if self.lacking(part[-1:]):
                raise BadAnswer("metrics that were accepted are not in the tracking store")

    def tags(self, tags: Mapping[str, str]) -> None:
        """Tags, in place of those of the same names."""
        from mlflow.entities import RunTag

        listed = [RunTag(key, str(value)[:TAG_LENGTH]) for key, value in tags.items()]
        self._client().log_batch(self.run_id, tags=listed)
        if tags.keys() - self.run().data.tags.keys():
            raise BadAnswer("tags that were accepted are not in the tracking store")

    def end(self, status: str, time: int | None) -> None:
        """The status, with the time in ms of the end (None: now)."""
        self._client().set_terminated(self.run_id, status, time)
        if self.run().info.status != status:
            raise BadAnswer("a status that was accepted is not in the tracking store")
