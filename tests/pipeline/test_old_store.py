"""A store of the version before records had a schema: read, reused, resumed and analysed.

It has a teacher, a finished KD student (seed 0), one that was interrupted after its first of two
epochs (seed 1), and an export.
"""

import tarfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import tags
from pipeline.__main__ import main
from pipeline.storage.run_record import SCHEMA
from pipeline.storage.run_store import Store

ARCHIVE = Path(__file__).parents[1] / "data" / "store_without_schema.tar.xz"
FINISHED, INTERRUPTED = "0dfc0e0bd78f", "183eb551b721"
WORDS = [
    "cfg=KD",
    "bench=digits_all",
    "data.train_limit=100",
    "budget.student_epochs=2",
    "teacher.0.recipe.epochs=1",
    "teacher.0.model=resnet8",
    "teacher.1=null",
    "optim=sgd",
    "runtime.log_model=false",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_records_are_brought_up_to_date(folder: Path) -> None:
    run = Store(folder / "store" / "runs").run("distill", FINISHED)
    spec, result = run.spec(), run.result()
    assert spec is not None
    assert result is not None
    assert (spec.schema, spec.name) == (SCHEMA, "distill-KD-digits-s0")
    assert (result.schema, result.key, len(result.history)) == (SCHEMA, FINISHED, 2)


def test_a_finished_run_is_reused_and_an_interrupted_one_resumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(folder / "store" / "runs")
    commit = store.run("distill", INTERRUPTED).latest()
    assert commit is not None
    assert main(["distill", *WORDS]) == 0
    assert f"reused   distill-KD-digits_all-s0  key {FINISHED}" in capsys.readouterr().out
    assert main(["distill", *WORDS, "seed=1"]) == 0
    shown = capsys.readouterr().out
    assert f"resumed  distill-KD-digits_all-s1  key {INTERRUPTED}  at epoch 1/2" in shown
    result = store.run("distill", INTERRUPTED).result()
    assert result is not None
    assert [entry["index"] for entry in result.history] == [0, 1]
    assert result.history[:1] == commit.history
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(["1"], f"tags.{tags.STAGE} = 'distill'")
    assert {run.data.tags[tags.RUN_KEY]: run.info.status for run in runs} == {
        FINISHED: "FINISHED",
        INTERRUPTED: "FINISHED",
    }


def test_an_export_is_analysed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "store=old.db.xz"]) == 0
    assert "KD" in capsys.readouterr().out
