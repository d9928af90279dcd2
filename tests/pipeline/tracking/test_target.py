"""The tracking store is opened by one process at a time: a fresh SQLite file has no schema yet."""

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
