"""The MLflow model of a student: whole and single after any damage and any wrong answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from analysis import tags
from pipeline.storage.lease import acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.model_export import ALIAS, linked_models
from pipeline.tracking.replay import replay
from pipeline.tracking.target import TrackingTarget, quiet_mlflow
from pipeline.tracking.upload import RunUpload
from tests.faulty_server import AFTER, CLOSE, FaultyServer
from tests.pipeline import records
from trainers import metrics, models

NAME = "students"


def student_at(root: Path) -> RunFolder:
    """A finished student, as a stage leaves it."""
    folder = RunFolder(root, "distill", "2ae8f952aa64")
    run_tags = {
        tags.RUN_KEY: folder.key,
        tags.STAGE: "distill",
        tags.BENCH: "toy",
        tags.STUDENT: "resnet8",
        tags.SEED: "0",
    }
    data = {"classes": 10, "image_size": 8, "channels": 1, "mean": [0.5], "std": [0.5]}
    config = {"data": data, "student": {"model": "resnet8"}}
    versions = {"mlflow": "3", "torch": "2"}
    folder.write_spec(
        records.spec(folder="f0", name="toy", tags=run_tags, config=config, versions=versions)
    )
    torch.manual_seed(0)
    network = models.build("resnet8", 10, 8, in_chans=1)
    digest = folder.save_tensors("student", network.state_dict())
    found = {metrics.TEST_TOP1: 0.5}
    folder.finish(records.result(metrics=found, weights={"student": digest}))
    return folder


def whole(folder: RunFolder, target: TrackingTarget, run_id: str) -> str:
    """The address of the only model of the run, which can be loaded and knows its accuracy."""
    import mlflow

    client = target.client()
    found = client.search_logged_models([target.experiment_id()], f"source_run_id = '{run_id}'")
    result = folder.result()
    assert result is not None
    assert mlflow.get_tracking_uri() != target.uri  # the caller's choice is left alone
    (model,) = linked_models(target, client.get_run(run_id), result)
    assert [one.model_id for one in found] == [model.model_id]
    assert {one.key: one.value for one in model.metrics or []} == {metrics.TEST_TOP1: 0.5}
    mlflow.set_tracking_uri(target.uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)  # MLflow would choose a GPU
        loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert loaded.predict(torch.zeros(3, 1, 8, 8).numpy()).shape == (3, 10)
    return str(model.artifact_location)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("MLmodel", _cut),
        ("requirements.txt", Path.unlink),
        ("input_example.json", _flip),
        ("data/model.pt2", _flip),
    ],
)
def test_damaged_files_of_a_model_are_logged_again(
    file: str, damage: Callable[[Path], None], schema: Path, tmp_path: Path
) -> None:
    quiet_mlflow()
    shutil.copy(schema, tmp_path)
    target = TrackingTarget(
        f"sqlite:///{tmp_path}/mlflow.db", "asib", None, "distill", tmp_path / "tracking"
    )
    folder = student_at(tmp_path / "store")
    run_id = replay(folder, target, log_model=True)
    root = Path(whole(folder, target, run_id).removeprefix("file://"))
    assert not _lacks(folder, target)
    damage(root / file)
    assert _lacks(folder, target)
    with acquire(folder.path) as lease:
        upload = RunUpload(folder, target, lease)
        upload.mend(again=False)
        result = folder.result()
        assert result is not None
        upload.finish(result, log_model=True)
    whole(folder, target, run_id)
    assert not _lacks(folder, target)


def _lacks(folder: RunFolder, target: TrackingTarget) -> bool:
    with acquire(folder.path) as lease:
        return RunUpload(folder, target, lease).lacks_files(folder.result(), read=False)


@pytest.fixture
def target(faulty: FaultyServer, tmp_path: Path) -> Iterator[TrackingTarget]:
    quiet_mlflow()
    found = TrackingTarget(faulty.uri, "asib", None, "distill", tmp_path / "store" / "tracking")
    found.register = NAME
    yield found
    found.leave_launch()


PATHS = (
    "logged-models",
    "logged-models/search",
    "runs/outputs",
    "registered-models/create",
    "model-versions/create",
    "registered-models/alias",
)
ANSWERS = ("500", "html", "{}", CLOSE, AFTER + "500", AFTER + CLOSE)
ONE_OF_EACH = [
    ("logged-models", AFTER + CLOSE),
    ("runs/outputs", "{}"),
    ("registered-models/create", "html"),
    ("model-versions/create", AFTER + "500"),
]


@pytest.mark.parametrize(
    ("path", "how"),
    [
        *(pytest.param(*one, marks=pytest.mark.thorough) for one in ONE_OF_EACH),
        *(
            pytest.param(*one, marks=[pytest.mark.by_hand, pytest.mark.faults])
            for one in product(PATHS, ANSWERS)
            if one not in ONE_OF_EACH
        ),
    ],
)
def test_one_wrong_answer_doubles_and_loses_no_model(
    path: str, how: str, faulty: FaultyServer, target: TrackingTarget, tmp_path: Path
) -> None:
    folder = student_at(tmp_path / "store")
    seen = list[str]()

    def faults(_: str, at: str) -> str | None:
        hit = at.rstrip("/") == path and len(seen) < 1
        seen.extend([at] if hit else [])
        return how if hit else None

    faulty.faults = faults
    run_id = _in_the_end(folder, target, faulty)
    assert seen, f"nothing was asked of {path}"
    whole(folder, target, run_id)
    client = MlflowClient(faulty.database, faulty.database)
    versions: list[Any] = list(client.search_model_versions(f"name = '{NAME}'"))
    assert [one.run_id for one in versions] == [run_id]
    alias = client.get_model_version_by_alias(NAME, ALIAS)
    assert alias.version == versions[0].version


def _in_the_end(folder: RunFolder, target: TrackingTarget, server: FaultyServer) -> str:
    for _ in range(3):
        try:
            run_id = replay(folder, target, log_model=True)
            server.heal()
            return replay(folder, target, log_model=True) or run_id
        except Exception:  # noqa: BLE001 - whatever the fault causes; it is tried again
            server.heal()
    raise AssertionError("it was not sent by a healthy server")
