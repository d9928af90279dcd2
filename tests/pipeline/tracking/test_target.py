"""The tracking store is opened by one process at a time: a fresh SQLite file has no schema yet."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

from pipeline.storage.lease import try_acquire
from pipeline.tracking.target import TrackingTarget


def test_the_store_is_opened_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow makes the schema when a client is made, not only at its first question."""
    free = []

    def client(**_: Any) -> SimpleNamespace:
        free.append(try_acquire(tmp_path / "tracking") is not None)
        return SimpleNamespace(search_experiments=client)

    monkeypatch.setattr(mlflow, "MlflowClient", client)
    found = TrackingTarget("http://x", "asib", None, "distill", tmp_path / "tracking")
    found.client()
    assert free == [False, False]
    released = try_acquire(tmp_path / "tracking")
    assert released is not None
    released.release()


@pytest.mark.parametrize(
    ("environment", "option", "experiment", "launch"),
    [
        ({}, None, "asib", None),
        ({"MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_RUN_ID": "r"}, None, "asib", None),
        ({"MLFLOW_EXPERIMENT_ID": "3", "MLFLOW_RUN_ID": "r"}, None, "#3", "r"),
        ({"MLFLOW_EXPERIMENT_ID": "3", "MLFLOW_RUN_ID": "r"}, "own", "own", None),
        ({"MLFLOW_EXPERIMENT_NAME": "x", "MLFLOW_RUN_ID": "r"}, None, "x", "r"),
        ({"MLFLOW_EXPERIMENT_NAME": "x", "MLFLOW_RUN_ID": "r"}, "x", "x", "r"),
    ],
)
def test_the_experiment_and_its_launch_run(
    environment: dict[str, str],
    option: str | None,
    experiment: str,
    launch: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`mlflow run` without an experiment names Default: then runs and launch are in our own."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    target = TrackingTarget.from_environment("distill", option, tmp_path)
    assert (target.experiment, target.launch_id) == (experiment, launch)
    assert not any(name in os.environ for name in environment)


def test_a_database_server_that_is_away_is_no_long_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself would try again for minutes: it is not asked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:word@127.0.0.1:9/mlflow")
    target = TrackingTarget.from_environment("distill", "asib", tmp_path)
    monkeypatch.setattr(mlflow, "MlflowClient", None)
    with pytest.raises(ConnectionError, match=r"postgresql://127\.0\.0\.1:9/mlflow: no answer"):
        target.client()
