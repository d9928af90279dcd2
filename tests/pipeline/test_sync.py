"""After sync the tracking store equals the run folders, value by value."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis import tags
from analysis.runs import opened
from pipeline.__main__ import main
from pipeline.launch.base import environment_of
from pipeline.storage.lease import acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.audit import RIGHT, judged, tracked_runs
from pipeline.tracking.plain_runs import PlainRun
from pipeline.tracking.replay import replay
from pipeline.tracking.restore import whole_result
from pipeline.tracking.target import TrackingTarget, quiet_mlflow
from pipeline.tracking.upload_state import UploadState
from tests.pipeline.tracking.test_upload import folder_at
from trainers import metrics


class Place:
    """A store with one finished run that has been sent, as commands of one test see it."""

    def __init__(self, folder: Path, uri: str) -> None:
        quiet_mlflow()
        self.root, self.client, self.uri = folder, MlflowClient(uri), uri
        self.run = folder_at(folder / "runs")
        self.target = TrackingTarget(uri, "asib", None, "distill", folder / "tracking")
        self.run_id = replay(self.run, self.target, log_model=False)
        self.target.end_launch("FINISHED", {})

    def lose(self) -> None:
        """All runs and experiments are gone from the store."""
        with closing(sqlite3.connect(self.uri.removeprefix("sqlite:///"))) as base, base:
            for (table,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                if table not in ("alembic_version", "workspaces", "experiments"):
                    base.execute(f'DELETE FROM "{table}"')
            base.execute("DELETE FROM experiments WHERE experiment_id > 0")
        self.target._experiment_id = None

    def sync(self) -> int:
        return main(["sync", f"runtime.store={self.root}"])

    def is_right(self) -> bool:
        number = self.target.experiment_id()
        record = UploadState.load(self.run, self.target)
        spec, result = self.run.spec(), self.run.result()
        assert spec is not None
        found = tracked_runs(opened(self.uri), number, {str(record.run_id)})
        run = found.get(str(record.run_id))
        return run is not None and judged(run, spec, result, []) == RIGHT

    def runs(self, stage: str) -> list[Any]:
        return list(
            self.client.search_runs([self.target.experiment_id()], f"tags.{tags.STAGE} = '{stage}'")
        )


@pytest.fixture
def place(schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Place:
    shutil.copy(schema, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "store", uri)


def _failed(place: Place) -> None:
    place.client.set_terminated(place.run_id, "FAILED")


def _running(place: Place) -> None:
    place.client.update_run(place.run_id, status="RUNNING")


def _doubled(place: Place) -> None:
    place.client.log_metric(place.run_id, "val/top1", 0.5, timestamp=2_001, step=0)


def _another_value(place: Place) -> None:
    place.client.log_metric(place.run_id, metrics.TEST_TOP1, 0.9, timestamp=9_000, step=0)


def _an_epoch_too_many(place: Place) -> None:
    place.client.log_batch(place.run_id, [Metric("val/top1", 0.7, 2_500, 7)])


def _a_tag(place: Place) -> None:
    place.client.set_tag(place.run_id, tags.SEED, "7")


def _deleted(place: Place) -> None:
    place.client.delete_run(place.run_id)


def _nothing(place: Place) -> None:
    pass


DAMAGES = [
    _nothing,
    _failed,
    _running,
    _doubled,
    _another_value,
    _an_epoch_too_many,
    _a_tag,
    _deleted,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_repaired_and_the_second_sync_does_nothing(
    place: Place, damage: Callable[[Place], None], capsys: pytest.CaptureFixture[str]
) -> None:
    child = place.client.create_run(
        place.target.experiment_id(), tags={tags.STAGE: "evaluate", tags.PARENT: place.run_id}
    )
    damage(place)
    assert place.is_right() == (damage is _nothing)
    assert place.sync() == 0
    assert place.is_right()
    assert len(place.runs("finetune")) == 1
    if damage is not _deleted:
        (parent,) = place.runs("finetune")
        found = place.client.get_run(child.info.run_id).data.tags[tags.PARENT]
        assert found == parent.info.run_id
    capsys.readouterr()
    assert place.sync() == 0
    assert "synced   0 runs" in capsys.readouterr().out
    assert {run.info.status for run in place.runs("launch")} == {"FINISHED"}


def test_readings_of_the_test_split_and_system_metrics_are_no_damage(place: Place) -> None:
    place.client.log_metric(place.run_id, metrics.TEST_READS, 2.0, step=0)
    place.client.log_metric(place.run_id, "system/cpu_utilization_percentage", 50.0, step=3)
    assert place.is_right()


def unfinished(place: Place) -> RunFolder:
    """A run of one epoch, whose process is gone."""
    folder = RunFolder(place.run.root, "finetune", "0123456789ab")
    spec = place.run.spec()
    assert spec is not None
    changed = spec.to_json() | {
        "tags": spec.tags | {tags.RUN_KEY: folder.key},
        "folder": "f1",
    }
    folder.write_spec(type(spec).from_json(changed))
    history: Any = [
        {"index": 0, "stage": 0, "step": "B", "time": 2_000, "metrics": {"val/top1": 0.5}}
    ]
    folder.commit({}, history, token="a")
    UploadState.load(folder, place.target).save(folder, place.target)
    return folder


def test_a_run_whose_process_is_gone_becomes_killed_and_a_living_one_is_left_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished(place)
    with acquire(folder.path, heartbeat_s=0.05, expiry_s=1.0):
        assert place.sync() == 0
        assert "its own process sends it" in capsys.readouterr().out
        assert len(place.runs("finetune")) == 1
    assert place.sync() == 0
    (run,) = [r for r in place.runs("finetune") if r.data.tags[tags.RUN_KEY] == folder.key]
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"val/top1": 0.5}
    place.client.update_run(run.info.run_id, status="RUNNING")  # as a SIGKILL leaves it
    assert place.sync() == 0
    assert place.client.get_run(run.info.run_id).info.status == "KILLED"


def test_one_damaged_run_stops_no_other(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    broken = unfinished(place)
    (broken.path / "spec.json").write_text("{")
    _failed(place)
    assert place.sync() == 0
    assert place.is_right()
    assert f"key {broken.key}" in capsys.readouterr().out


def test_a_launch_whose_end_did_not_arrive_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own status and numbers; as KILLED where its process was killed."""
    failed = TrackingTarget(place.uri, "asib", None, "distill", place.target.lock_folder)
    failed.parent_id()
    failed.carry("student", {metrics.TEST_TOP1: 0.25})

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", away)
        with pytest.raises(ConnectionError):
            failed.end_launch("FAILED", {tags.ERROR: "x"})
    killed = TrackingTarget(place.uri, "asib", None, "main", place.target.lock_folder)
    killed.parent_id()
    assert killed._lease is not None
    assert place.sync() == 0
    assert place.client.get_run(str(killed.launch_id)).info.status == "RUNNING"  # it lives
    killed._lease.release()
    assert place.sync() == 0
    assert place.client.get_run(str(killed.launch_id)).info.status == "KILLED"
    run = place.client.get_run(str(failed.launch_id))
    assert (run.info.status, run.data.tags[tags.ERROR]) == ("FAILED", "x")
    assert run.data.metrics == {"student/test/top1": 0.25}
    assert len(place.runs("launch")) == 3


def _artifact(place: Place, pattern: str, run_id: str | None = None) -> Path:
    root = place.client.get_run(run_id or place.run_id).info.artifact_uri
    (found,) = Path(root.removeprefix("file://")).glob(pattern)
    return found


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip])
@pytest.mark.parametrize("file", ["weights/teacher.*.safetensors", "spec.json"])
def test_files_in_the_artifact_store_are_compared_and_sent_again(
    place: Place, file: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = _artifact(place, file)
    before = path.read_bytes()
    damage(path)
    assert place.sync() == 0
    assert path.read_bytes() == before
    assert "synced   1 run " in capsys.readouterr().out
    assert place.sync() == 0
    assert "synced   0 runs" in capsys.readouterr().out


def test_weights_that_only_the_artifact_store_has_stay_there(place: Place) -> None:
    (lost,) = place.run.path.glob("*.safetensors")
    lost.unlink()
    assert place.sync() == 0
    result = place.run.result()
    assert result is not None
    assert whole_result(place.run, place.target) == result
    assert lost.is_file()
    _cut(lost)
    _artifact(place, "weights/*.safetensors").unlink()
    assert whole_result(place.run, place.target) is None
    assert place.sync() == 0  # nothing can be sent, and that is said


def test_a_launch_of_a_command_that_never_reached_the_store_gets_its_own_status(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = TrackingTarget(place.uri, "asib", None, "distill", place.target.lock_folder)
    never.begin()
    folder = unfinished(place)
    (folder.path / f"{UploadState.name(place.target)}.json").unlink()
    UploadState.load(folder, never).save(folder, never)

    def away(_: TrackingTarget) -> MlflowClient:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(TrackingTarget, "client", away)
        with pytest.raises(ConnectionError):
            never.end_launch("FAILED", {tags.ERROR: "x"})
    assert place.sync() == 0
    (launch,) = [run for run in place.runs("launch") if run.info.status != "FINISHED"]
    assert launch.info.run_name == "launch-distill"
    assert (launch.info.status, launch.data.tags[tags.ERROR]) == ("FAILED", "x")
    (run,) = [r for r in place.runs("finetune") if r.data.tags[tags.RUN_KEY] == folder.key]
    assert run.data.tags[tags.PARENT] == launch.info.run_id


@pytest.mark.thorough
def test_evaluations_and_reports_that_could_not_end_are_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their own status where the store went away, as KILLED where the process was killed;
    one that never arrived leaves nothing."""

    def begun(stage: str) -> tuple[TrackingTarget, PlainRun]:
        target = TrackingTarget(place.uri, "asib", None, "evaluate", place.target.lock_folder)
        return target, target.created({tags.STAGE: stage, tags.PARENT: place.run_id}, stage)

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError

    away_at_end, first = begun("evaluate")
    living, second = begun("analyze")
    whole, third = begun("evaluate")
    whole.ended(third, "FINISHED", {})
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", away)
        with pytest.raises(ConnectionError):
            away_at_end.ended(first, "FAILED", {tags.ERROR: "x"})
        patched.setattr(MlflowClient, "create_run", away)
        with pytest.raises(ConnectionError):
            begun("evaluate")
    away_at_end.leave_launch()
    assert place.sync() == 0
    whole.leave_launch()
    statuses = [place.client.get_run(one.run_id).info.status for one in (first, second, third)]
    assert statuses == ["FAILED", "RUNNING", "FINISHED"]
    living.leave_launch()
    assert place.sync() == 0
    assert place.client.get_run(second.run_id).info.status == "KILLED"
    assert len(place.runs("evaluate")) == 2


def test_jobs_whose_command_found_no_store_share_one_launch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = TrackingTarget(place.uri, "asib", None, "distill", place.target.lock_folder)
    environment = dict(environment_of(command, None))
    launches = set()
    for verb in ("finetune", "distill"):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        job = TrackingTarget.from_environment(verb, None, place.root)
        launches.add(job.parent_id())
        job.end_launch("FINISHED", {})
        assert place.client.get_run(job.parent_id()).info.status == "RUNNING"  # others may run
    (launch,) = launches
    assert place.client.get_run(launch).info.run_name == "launch-distill"


def test_a_store_that_is_away_is_one_message(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim@127.0.0.1:9")
    assert place.sync() == 1
    output = capsys.readouterr()
    assert "nothing was sent; run the same command later" in output.out
    assert "Traceback" not in output.out + output.err
    assert "geheim" not in output.out + output.err


PLAIN_DAMAGES: list[Callable[[Place, str], object]] = [
    lambda place, run_id: place.client.set_terminated(run_id, "FAILED"),
    lambda place, run_id: place.client.update_run(run_id, status="RUNNING"),
    lambda place, run_id: place.client.set_terminated(run_id, "FINISHED", 5),
    lambda place, run_id: place.client.set_tag(run_id, tags.BENCH, "another"),
    lambda place, run_id: place.client.set_tag(run_id, tags.PARENT, "another"),
    lambda place, run_id: place.client.log_metric(run_id, "eval/top1", 0.9),
    lambda place, run_id: place.client.log_metric(run_id, "eval/other", 0.9, step=3),
    lambda place, run_id: _cut(_artifact(place, "report.txt", run_id)),
    lambda place, run_id: _artifact(place, "report.txt", run_id).unlink(),
    lambda place, run_id: place.client.delete_run(run_id),
]


def evaluation(place: Place) -> PlainRun:
    """A finished evaluation of the run."""
    target = TrackingTarget(place.uri, "asib", None, "evaluate", place.target.lock_folder)
    run_tags = {
        tags.STAGE: "evaluate",
        tags.PARENT: place.run_id,
        tags.BENCH: "digits",
        tags.EVALUATED: place.run.key,
        tags.SPLIT: "val",
    }
    data = {"name": "digits", "digest": "d" * 40}
    run = target.created(run_tags, "evaluate-val", params={"run": "teacher"}, data=data)
    run.numbers = {"eval/top1": 0.5}
    run.write_files({"report.txt": "top-1 50 %"}, {"confusion.png": b"png"})
    target.ended(run, "FINISHED", {})
    target.leave_launch()
    return run


def shown(place: Place, stage: str) -> list[dict[str, Any]]:
    """The runs of a stage, value by value, without what the store itself chooses."""
    found = []
    for run in place.runs(stage):
        files = Path(run.info.artifact_uri.removeprefix("file://"))
        found.append(
            {
                "info": (run.info.run_name, run.info.status, run.info.end_time),
                "params": run.data.params,
                "metrics": run.data.metrics,
                "tags": run.data.tags,
                "data": [one.dataset.digest for one in run.inputs.dataset_inputs],
                "files": {path.name: path.read_bytes() for path in sorted(files.glob("*.*"))},
            }
        )
    return found


@pytest.mark.parametrize("damage", PLAIN_DAMAGES)
def test_an_evaluation_is_made_equal_to_its_record(
    place: Place, damage: Callable[[Place, str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluation(place)
    before = shown(place, "evaluate")
    damage(place, str(run.run_id))
    assert place.sync() == 0
    assert shown(place, "evaluate") == before
    capsys.readouterr()
    assert place.sync() == 0
    assert "synced   0 runs" in capsys.readouterr().out


def test_another_store_than_that_of_the_runs_is_told_theirs(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.sync()
    assert "belong to" not in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri.replace("mlflow.db", "other.db"))
    assert place.sync() == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "synced 0 runs" in printed
    assert f"They belong to {place.uri}: set MLFLOW_TRACKING_URI to that" in printed


@pytest.mark.parametrize("damage", PLAIN_DAMAGES[:3])
def test_a_launch_is_made_equal_to_its_record(
    place: Place, damage: Callable[[Place, str], object]
) -> None:
    before = shown(place, "launch")
    damage(place, place.runs("launch")[0].info.run_id)
    assert place.sync() == 0
    assert shown(place, "launch") == before


def test_a_store_that_was_lost_is_made_again_with_all_its_runs(place: Place) -> None:
    """Launches, stage runs and evaluations, each under its parent of the new store."""
    evaluation(place)
    before = {stage: shown(place, stage) for stage in ("launch", "finetune", "evaluate")}
    place.lose()
    assert place.sync() == 0
    after = {stage: shown(place, stage) for stage in ("launch", "finetune", "evaluate")}
    (launch,), (run,), (child,) = (place.runs(stage) for stage in before)
    assert run.data.tags[tags.PARENT] == launch.info.run_id
    assert child.data.tags[tags.PARENT] == run.info.run_id
    for runs in (*before.values(), *after.values()):
        for one in runs:
            one["tags"].pop(tags.PARENT, None)
    assert after == before


def test_a_report_that_was_deleted_stays_deleted(place: Place) -> None:
    target = TrackingTarget(place.uri, "asib", None, "analyze", place.target.lock_folder)
    run = target.created({tags.STAGE: "analyze", tags.BENCH: "digits"}, "analyze-digits")
    target.ended(run, "FINISHED", {})
    target.leave_launch()
    place.client.set_tag(str(run.run_id), tags.BENCH, "another")
    assert place.sync() == 0
    (report,) = place.runs("analyze")
    assert report.data.tags[tags.BENCH] == "digits"
    place.client.delete_run(report.info.run_id)
    assert place.sync() == 0
    assert place.runs("analyze") == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "\0", '{"tags": 1}', None])
def test_a_damaged_record_of_a_command_stops_nothing(
    place: Place, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = TrackingTarget(place.uri, "asib", None, "main", place.target.lock_folder)
    killed.parent_id()
    assert killed._lease is not None
    killed._lease.release()
    file = place.target.lock_folder / "launches" / killed.command / "launch.json"
    file.unlink()
    file.mkdir() if text is None else file.write_text(text)
    _failed(place)
    assert place.sync() == 0
    assert place.is_right()
    assert sorted(run.info.status for run in place.runs("launch")) == ["FINISHED", "KILLED"]
    assert "removed" in capsys.readouterr().out
    assert place.sync() == 0
    assert "removed" not in capsys.readouterr().out


def test_a_reading_of_the_test_split_that_was_not_counted_is(place: Place) -> None:
    result = place.run.result()
    assert result is not None
    place.run.finish(replace(result, metrics=result.metrics | {metrics.TEST_READS: 1.0}))
    place.run.count_test_read()
    place.run.count_test_read()
    for _ in range(2):
        assert place.sync() == 0
    history = place.client.get_metric_history(place.run_id, metrics.TEST_READS)
    assert max(metric.value for metric in history) == place.run.test_reads() == 2


def test_a_deleted_experiment_is_left_out(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(place)
    place.client.delete_experiment(place.target.experiment_id())
    words = [f"runtime.store={place.root}", "runtime.experiment=another"]
    assert main(["sync", *words]) == 0
    assert "left out experiment asib: deleted (1 run)" in capsys.readouterr().out
