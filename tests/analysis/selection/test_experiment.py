"""A reading gives what the store holds now, and reads each metric of its finished runs once."""

import pandas as pd
import pytest

from analysis.runs import load_history
from analysis.selection import experiment as module
from analysis.selection.experiment import ExperimentReader
from trainers import metrics

NAME = "readings"
METRICS = [metrics.LR, metrics.VAL_TOP1]


@pytest.fixture
def filters(monkeypatch) -> list[list[str]]:
    """The metrics of each call that reached the store."""
    calls: list[list[str]] = []

    def counted(uri, run_ids, metrics):
        calls.append(list(metrics))
        return load_history(uri, run_ids, metrics)

    monkeypatch.setattr(module, "load_history", counted)
    return calls


def test_histories_are_read_once_and_again_when_a_run_has_finished(store, filters):
    def finish(seed: int) -> str:
        points = {metrics.LR: [(0, 0.1), (1, seed / 10)], metrics.VAL_TOP1: [(0, 0.5)]}
        return store.distill(NAME, "CE", seed, 0.5, metrics=points)

    first = finish(0)
    once = ExperimentReader(store.uri, NAME)
    found = once.history([first], METRICS)
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True).astype({"run_id": str, "metric": str}),
        load_history(store.uri, [first], METRICS).astype({"run_id": str, "metric": str}),
    )
    once.history([first], [metrics.LR])
    ExperimentReader(store.uri, NAME).history([first], METRICS)
    assert filters == [METRICS]
    second = finish(1)
    again = ExperimentReader(store.uri, NAME).history([first, second], [metrics.LR])
    values = again.astype({"run_id": str}).groupby("run_id")["value"].apply(list)
    assert values.to_dict() == {first: [0.1, 0.0], second: [0.1, 0.1]}
    assert filters == [METRICS, [metrics.LR]]
    assert set(again["run_id"]) == {first, second}


def test_nothing_requested_is_an_empty_frame(store):
    store.distill("nothing", "CE", 0, 0.5)
    assert ExperimentReader(store.uri, "nothing").history([], []).empty
