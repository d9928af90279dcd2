"""Answers that are lost, wrong or of something else: afterwards the tracking store has each run
once, and in it exactly what the run folder has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis import tags
from pipeline.storage.lease import acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.creation import BadAnswer, only_run, same_runs
from pipeline.tracking.replay import replay
from pipeline.tracking.target import TrackingTarget, quiet_mlflow
from pipeline.tracking.upload import RunUpload
from pipeline.tracking.upload_state import UploadState
from tests.faulty_server import AFTER, CLOSE, SLOW, FaultyServer
from tests.pipeline.tracking.test_upload import folder_at
from trainers import metrics

WRONG = ["500", "html", "{}", CLOSE, SLOW]
DONE_ALL_THE_SAME = [AFTER + how for how in ("500", CLOSE, "{}")]
ONCE = ["{}", AFTER + "500", AFTER + CLOSE]


def target_of(server: FaultyServer, folder: Path) -> TrackingTarget:
    quiet_mlflow()
    return TrackingTarget(server.uri, "asib", None, "distill", folder / "store" / "tracking")


def sent_in_the_end(folder: RunFolder, target: TrackingTarget, server: FaultyServer) -> str:
    """The id of the run, sent with the server's faults first, then without."""
    for _ in range(3):
        try:
            return replay(folder, target, log_model=False)
        except Exception:  # noqa: BLE001 - whatever the fault causes; it is tried again
            server.heal()
    raise AssertionError("it was not sent by a healthy server")


def is_whole_and_single(folder: RunFolder, server: FaultyServer, run_id: str) -> None:
    client = MlflowClient(server.database)
    experiment = client.get_experiment_by_name("asib")
    assert experiment is not None
    everything = client.search_runs([experiment.experiment_id])
    stages = Counter(run.data.tags[tags.STAGE] for run in everything)
    assert stages == {"launch": 1, "finetune": 1}
    (run,) = [run for run in everything if run.data.tags[tags.STAGE] == "finetune"]
    result, spec = folder.result(), folder.spec()
    assert result is not None
    assert spec is not None
    assert run.info.run_id == run_id
    assert (run.info.status, run.info.end_time) == ("FINISHED", result.time)
    assert run.data.params == spec.params
    assert spec.tags.items() <= run.data.tags.items()
    points = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, "val/top1")]
    assert sorted(points) == [
        (e["index"], e["metrics"]["val/top1"], e["time"]) for e in result.history
    ]
    test = client.get_metric_history(run_id, metrics.TEST_TOP1)
    assert [point.value for point in test] == [result.metrics[metrics.TEST_TOP1]]
    assert [file.path for file in MlflowClient(server.uri).list_artifacts(run_id, "weights")]


@pytest.mark.parametrize("how", ONCE)
@pytest.mark.parametrize(
    "path",
    ["experiments/create", "runs/create", "runs/log-batch", "runs/update", "runs/log-inputs"],
)
def test_one_wrong_answer(how: str, path: str, faulty: FaultyServer, tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "store")
    faulty.fail(how, path, times=1)
    run_id = sent_in_the_end(folder, target_of(faulty, tmp_path), faulty)
    is_whole_and_single(folder, faulty, run_id)


@pytest.mark.parametrize("how", [*WRONG[:-1], *DONE_ALL_THE_SAME])
def test_all_answers_are_wrong_from_some_request_on(
    how: str, faulty: FaultyServer, tmp_path: Path
) -> None:
    folder, target = folder_at(tmp_path / "store"), target_of(faulty, tmp_path)
    for number in range(4, 40, 6):
        count = [0]

        def faults(method: str, path: str, count: Any = count, number: int = number) -> str | None:
            count[0] += 1
            return how if count[0] > number else None

        faulty.faults = faults
        try:
            replay(folder, target, log_model=False)
        except Exception:  # noqa: BLE001, S112 - whatever the fault causes; it is tried again
            continue
        break
    faulty.heal()
    is_whole_and_single(folder, faulty, replay(folder, target, log_model=False))


def test_a_request_that_is_done_late_leaves_no_run_behind(
    faulty: FaultyServer, tmp_path: Path
) -> None:
    """The second run of a repeated request appears after the first was found to be alone."""
    folder, target = folder_at(tmp_path / "store"), target_of(faulty, tmp_path)
    upload = RunUpload(folder, target, acquire(folder.path))
    upload.start()
    client = MlflowClient(faulty.database)
    run = client.get_run(str(upload.record.run_id))
    late = client.create_run(run.info.experiment_id, tags=run.data.tags)
    result = folder.result()
    assert result is not None
    upload.finish(result, log_model=False)
    upload.lease.release()
    assert client.get_run(late.info.run_id).info.lifecycle_stage == "deleted"
    is_whole_and_single(folder, faulty, str(run.info.run_id))


def test_an_empty_run_id_in_a_record_of_an_earlier_version_is_looked_up_again(
    faulty: FaultyServer, tmp_path: Path
) -> None:
    folder, target = folder_at(tmp_path / "store"), target_of(faulty, tmp_path)
    record = UploadState.load(folder, target)
    record.run_id = ""
    record.save(folder, target)
    is_whole_and_single(folder, faulty, replay(folder, target, log_model=False))


def test_a_damaged_record_is_made_again(faulty: FaultyServer, tmp_path: Path) -> None:
    folder, target = folder_at(tmp_path / "store"), target_of(faulty, tmp_path)
    for damage in (b"", b"{", b'{"body": {"run": 1}, "sha256": "x"}'):
        run_id = replay(folder, target, log_model=False)
        (record,) = folder.path.glob("tracking-*.json")
        record.write_bytes(damage)
        assert replay(folder, target, log_model=False) == run_id
        is_whole_and_single(folder, faulty, run_id)


def test_a_run_that_is_answered_and_not_kept_is_an_error(faulty: FaultyServer) -> None:
    client = MlflowClient(faulty.uri)
    made = client.create_run("0", tags={"other": "x"})
    with pytest.raises(BadAnswer):
        only_run(client, "0", {"name": "a.b-c"}, lambda: made)
    assert same_runs(client, "0", {"other": "x"}) == [made.info.run_id]


def test_files_that_are_refused_stop_neither_metrics_nor_the_status(
    faulty: FaultyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = MlflowClient(faulty.database)
    nowhere = client.create_experiment("asib", artifact_location="/proc/nope")
    folder, target = folder_at(tmp_path / "store"), target_of(faulty, tmp_path)
    run_id = replay(folder, target, log_model=False)
    run = client.get_run(run_id)
    assert run.info.experiment_id == nowhere
    assert run.info.status == "FINISHED"
    assert run.data.metrics[metrics.TEST_TOP1] == 0.5
    assert [text for text in caplog.messages if "the artifact store does not take" in text]
    assert not UploadState.load(folder, target).files  # `sync` tries them again
