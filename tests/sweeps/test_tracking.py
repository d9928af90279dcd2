"""Trials in the tracking store: what is wrong there, or in the files next to it, is mended by the
next command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis import tags
from pipeline.storage.run_store import Store
from pipeline.tracking.target import TrackingTarget
from sweeps.tracking import VALUES, publish, study_target
from sweeps.trials import TrialStore
from tests.sweeps.test_trials import GRID, trial_store
from trainers import metrics


class Place:
    """A study with one ended trial that has been sent."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.client = MlflowClient(uri)
        self.target = TrackingTarget(uri, "asib/small", None, "sweep", folder / "tracking")
        self.session: Any = SimpleNamespace(
            store=Store(folder / "runs"), runtime=SimpleNamespace(log_model=False)
        )
        self.trials: TrialStore = trial_store(GRID, folder / "study")
        self.trials.enqueue()
        claimed = self.trials.take(1)
        assert claimed is not None
        value = {"key": "0" * 12, "val": 0.5, "test": 0.25, "synergy": None, "seconds": 3.0}
        claimed.trial.set_user_attr(VALUES, {"0": value})
        claimed.part.tell(claimed.trial, 0.5)
        claimed.lease.release()
        assert self.publish()

    def publish(self) -> bool:
        return publish(self.trials, study_target(self.trials, self.target), self.session)

    def run(self) -> Any:
        query = f"tags.{tags.STAGE} = 'trial'"
        (found,) = self.client.search_runs([self.target.experiment_id()], query)
        return found

    def file(self) -> Path:
        (found,) = self.trials.place("0").glob("mlflow-*.json")
        return found


@pytest.fixture
def place(schema: Path, tmp_path: Path) -> Place:
    shutil.copy(schema, tmp_path)
    return Place(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


DAMAGES: list[Callable[[Place], object]] = [
    lambda place: None,
    lambda place: place.client.set_terminated(place.run().info.run_id, "FAILED"),
    lambda place: place.client.update_run(place.run().info.run_id, status="RUNNING"),
    lambda place: place.client.log_metric(place.run().info.run_id, metrics.TEST_TOP1, 0.9),
    lambda place: place.client.delete_run(place.run().info.run_id),
    lambda place: place.file().write_bytes(b""),
    lambda place: place.file().write_text("[]"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_trial_that_is_wrong_in_the_tracking_store_is_mended(
    place: Place, damage: Callable[[Place], object]
) -> None:
    damage(place)
    assert place.publish()
    run = place.run()
    assert run.info.status == "FINISHED"
    assert run.data.metrics[metrics.BEST_VAL_TOP1] == 0.5
    assert run.data.metrics[metrics.TEST_TOP1] == 0.25
    assert run.data.metrics[metrics.RUN_SECONDS] == 3.0
