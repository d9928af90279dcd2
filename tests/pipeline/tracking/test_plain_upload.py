"""Runs without a run folder after wrong answers: each is in the store once, as its record says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import tags
from analysis.runs import opened
from pipeline.storage.atomic import sha256
from pipeline.tracking.audit import RIGHT
from pipeline.tracking.plain_runs import PlainRun, plain_runs
from pipeline.tracking.plain_upload import differences
from pipeline.tracking.target import TrackingTarget, quiet_mlflow
from tests.faulty_server import AFTER, CLOSE, FaultyServer

DATA = {"name": "digits", "digest": "d"}
TAGS = {tags.STAGE: "evaluate", tags.EVALUATED: "k", tags.SPLIT: "val"}


def tried(run: Callable[[], PlainRun], server: FaultyServer) -> PlainRun:
    """The result of a call that is repeated until it succeeds; the server heals after the first."""
    for _ in range(3):
        try:
            return run()
        except Exception:  # noqa: BLE001 - whatever the fault causes; it is tried again
            server.heal()
    raise AssertionError("it was not sent by a healthy server")


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["500", "html", "{}", CLOSE, AFTER + "500", AFTER + CLOSE])
@pytest.mark.parametrize(
    "path", ["runs/create", "runs/search", "runs/get", "runs/update", "runs/log-batch", "artifacts"]
)
def test_one_wrong_answer(path: str, how: str, faulty: FaultyServer, tmp_path: Path) -> None:
    quiet_mlflow()
    target = TrackingTarget(faulty.uri, "asib", None, "evaluate", tmp_path / "store" / "tracking")
    hits = list[str]()

    def faults(_: str, at: str) -> str | None:
        hit = not hits and (path in at if path == "artifacts" else at == path)
        hits.extend([at] if hit else [])
        return how if hit else None

    target.client(), target.experiment_id()
    faulty.faults = faults
    run = tried(lambda: target.created(TAGS, "e", params={"split": "val"}, data=DATA), faulty)
    run.numbers = {"eval/top1": 0.5, "eval/nll": 2.0}
    run.write_files({"report.txt": "top-1 50 %"}, {"confusion.png": b"png"})

    def end() -> PlainRun:
        target.ended(run, "FINISHED", {"device": "cpu"})
        return run

    tried(end, faulty)
    target.leave_launch()
    assert hits, f"nothing was asked of {path}"
    (found,) = plain_runs(target.lock_folder, faulty.uri)
    number = target.experiment_id()
    assert list(differences([found], opened(faulty.database), number).values()) == [RIGHT]
    client = MlflowClient(faulty.uri)
    (stored,) = client.search_runs([number])
    assert [one.dataset.digest for one in stored.inputs.dataset_inputs] == ["d"]
    for file in found.files_folder.iterdir():
        copy = client.download_artifacts(stored.info.run_id, file.name, str(tmp_path))
        assert sha256(Path(copy)) == sha256(file)
