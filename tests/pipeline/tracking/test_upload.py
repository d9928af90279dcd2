"""What arrives at the tracking store, and how often."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from analysis import tags
from pipeline.storage.lease import LeaseLost, acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.replay import arrived, replay
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload import RunUpload
from pipeline.tracking.upload_state import UploadState
from pipeline.tracking.upload_state import records as records_of
from tests.pipeline import records
from trainers import metrics

NAME = "finetune-resnet20-toy-s0"


def folder_at(root: Path) -> RunFolder:
    """A finished run, as a stage leaves it."""
    folder = RunFolder(root, "finetune", "2ae8f952aa64")
    run_tags = {
        tags.RUN_KEY: folder.key,
        tags.STAGE: "finetune",
        tags.BENCH: "toy",
        tags.STUDENT: "resnet8",
        tags.TEACHERS: "resnet20",
        tags.SEED: "0",
    }
    folder.write_spec(records.spec(folder="f0", name=NAME, params={"seed": "0"}, tags=run_tags))
    digest = folder.save_tensors("teacher", {"w": torch.zeros(1)})
    history = [{"index": 0, "stage": 0, "step": "B", "time": 2_000, "metrics": {"val/top1": 0.5}}]
    folder.finish(
        records.result(
            metrics={metrics.TEST_TOP1: 0.5}, history=history, weights={"teacher": digest}
        )
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return folder_at(tmp_path / "store")


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackingTarget:
    """An empty tracking store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return TrackingTarget.from_environment("sweeps", "asib", tmp_path / "store")


@pytest.mark.thorough
def test_a_reused_run_arrives_once_from_two_processes_that_find_it_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The barrier lets both workers look for the run before either makes it, where they can."""
    folder = folder_at(tmp_path / "store")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    find, both = RunUpload._find, Barrier(2)

    def slow_find(self: RunUpload) -> str | None:
        found = find(self)
        if not both.broken:
            try:
                both.wait(2.0)
            except Exception:  # noqa: BLE001 - the other waits for its turn: as it should
                both.abort()
        return found

    monkeypatch.setattr(RunUpload, "_find", slow_find)
    workers = [TrackingTarget.from_environment("sweeps", "asib", tmp_path / "store") for _ in "ab"]
    workers[0].experiment_id()
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda one: replay(folder, one, log_model=False), workers))
    assert len(set(ids)) == 1
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([workers[0].experiment_id()], f"tags.{tags.RUN_KEY} = '{folder.key}'")
    assert [run.info.run_id for run in runs] == [ids[0]]
    assert runs[0].info.status == "FINISHED"
    assert len(client.get_metric_history(ids[0], "val/top1")) == 1


def test_an_upload_whose_lease_was_released_does_not_set_a_finished_run_back(
    folder: RunFolder, target: TrackingTarget
) -> None:
    """A server that was away answers a thread that its process has given up waiting for."""
    result = folder.result() or records.result()
    with acquire(folder.path) as lease:
        late = RunUpload(folder, target, lease)
        late.start()
        late.sure = False  # as after a call that failed
    run_id = replay(folder, target, log_model=False)
    for call in (late.start, lambda: late.finish(result, log_model=False), late._save):
        with pytest.raises(LeaseLost):
            call()
    assert target.client().get_run(run_id).info.status == "FINISHED"
    assert UploadState.load(folder, target).finished


def test_a_run_that_was_deleted_from_the_store_is_sent_again(
    folder: RunFolder, target: TrackingTarget
) -> None:
    first = replay(folder, target, log_model=False)
    assert replay(folder, target, log_model=False) == first
    target.client().delete_run(first)
    assert replay(folder, target, log_model=False) != first


def test_a_folder_has_arrived_where_it_was_trained_before_where_it_was_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    at = {
        name: TrackingTarget.from_environment("sweeps", name, tmp_path / "store")
        for name in ("asib", "asib/ladder", "gone")
    }
    assert arrived(folder, at["asib"]) == []
    with acquire(folder.path) as lease:
        trained = RunUpload(folder, at["asib/ladder"], lease)
        trained.finish(folder.result() or records.result(), log_model=False)
    reused = {name: replay(folder, at[name], log_model=False) for name in ("asib", "gone")}
    at["gone"].client().delete_run(reused["gone"])
    assert arrived(folder, at["asib"]) == [trained.record.run_id, reused["asib"]]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    other = TrackingTarget.from_environment("sweeps", "asib", tmp_path / "store")
    assert arrived(folder, other) == []


def test_a_reused_run_that_could_not_be_sent_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there before the first request fails: `sync` finds it."""
    folder = folder_at(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    target = TrackingTarget.from_environment("sweeps", "asib", tmp_path / "store")
    with pytest.raises(Exception):
        replay(folder, target, log_model=False)
    assert [record.run_id for record in records_of(folder, target)] == [None]


def test_a_process_that_lost_its_lease_sends_nothing_more(
    folder: RunFolder, target: TrackingTarget
) -> None:
    """The lease is lost between any two requests."""
    result = folder.result()
    assert result is not None
    run_id = replay(folder, target, log_model=False)
    client = target.client()
    for most in range(5):  # requests before it is lost
        left = [most]

        def check(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise LeaseLost

        lease: Any = SimpleNamespace(check=check)
        zombie = RunUpload(folder, target, lease)
        zombie.record.finished = zombie.record.files = False
        with pytest.raises(LeaseLost):
            zombie.stop("FAILED", {tags.ERROR: "x"})
        assert client.get_run(run_id).info.status != "FAILED"
        client.update_run(run_id, status="FINISHED")
