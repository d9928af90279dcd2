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
from pipeline.__main__ import main
from pipeline.storage.run_store import Store
from pipeline.tracking.target import TrackingTarget
from sweeps.tracking import VALUES, end, publish, study_target, trial_target
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
        study = study_target(self.trials, self.target)
        sent = publish(self.trials, study, self.session)
        study.leave_launch()  # as the end of the process does
        return sent

    def of(self, stage: str) -> list[Any]:
        query = f"tags.{tags.STAGE} = '{stage}'"
        return list(self.client.search_runs([self.target.experiment_id()], query))

    def run(self) -> Any:
        (found,) = self.of("trial")
        return found

    def sync(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.target.uri)
        assert main(["sync", f"runtime.store={self.target.lock_folder.parent}"]) == 0

    def file(self) -> Path:
        (found,) = self.target.lock_folder.glob("launches/*/trial-0.json")
        return found


@pytest.fixture
def place(schema: Path, tmp_path: Path) -> Place:
    shutil.copy(schema, tmp_path)
    return Place(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def _is_right(place: Place) -> bool:
    run = place.run()
    wanted = {metrics.BEST_VAL_TOP1: 0.5, metrics.TEST_TOP1: 0.25, metrics.RUN_SECONDS: 3.0}
    return run.info.status == "FINISHED" and run.data.metrics == wanted


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
    assert _is_right(place)


@pytest.mark.parametrize("damage", DAMAGES[:5])
def test_sync_alone_mends_a_study_and_its_trials(
    place: Place,
    damage: Callable[[Place], object],
    monkeypatch: pytest.MonkeyPatch,
    signals: None,
) -> None:
    """Without the study's command, its storage or its sampler."""
    target = study_target(place.trials, place.target)
    end(place.trials, target, "FINISHED", {})
    damage(place)
    (study,) = place.of("study")
    place.client.set_terminated(study.info.run_id, "FAILED")
    place.client.set_tag(study.info.run_id, tags.BENCH, "another")
    shutil.rmtree(place.trials.folder)
    place.sync(monkeypatch)
    assert _is_right(place)
    (study,) = place.of("study")
    assert (study.info.status, study.data.tags[tags.BENCH]) == ("FINISHED", "digits")
    assert place.run().data.tags[tags.PARENT] == study.info.run_id


@pytest.mark.thorough
def test_a_study_whose_workers_are_gone_becomes_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    claimed = place.trials.take(2)
    assert claimed is not None
    study = study_target(place.trials, place.target)
    trial_target(place.trials, claimed.label, study).parent_id()
    place.sync(monkeypatch)
    assert [run.info.status for run in place.of("study")] == ["RUNNING"]
    study.leave_launch()
    place.sync(monkeypatch)  # its command has ended, a worker runs a trial
    assert [run.info.status for run in place.of("study")] == ["RUNNING"]
    claimed.lease.release()
    place.sync(monkeypatch)
    assert [run.info.status for run in place.of("study")] == ["KILLED"]
    assert sorted(run.info.status for run in place.of("trial")) == ["FINISHED", "KILLED"]


def test_a_study_is_no_child_of_itself(place: Place) -> None:
    """The launch run of its workers is the study's own."""
    (study,) = place.of("study")
    place.target.launch_id = study.info.run_id
    target = study_target(place.trials, place.target)
    assert target.parent_id() == study.info.run_id
    end(place.trials, target, "FINISHED", {})
    (study,) = place.of("study")
    assert tags.PARENT not in study.data.tags
