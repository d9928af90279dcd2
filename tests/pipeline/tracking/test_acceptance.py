"""A store that refuses is reported before anything is trained, with what to give; one that is away
costs nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.tracking import answer as asked
from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import ACCEPTS, AWAY, REFUSES, artifact_fault
from pipeline.tracking.target import TrackingTarget
from tests.faulty_server import CLOSE, FaultyServer


def target(uri: str, experiment: str = "asib", folder: Path = Path("x")) -> TrackingTarget:
    return TrackingTarget(uri, experiment, None, "distill", folder)


def database(schema: Path, folder: Path) -> Path:
    return Path(shutil.copy(schema, folder / "mlflow.db"))


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("./mlruns", "sqlite:///PATH/mlflow.db"),
        ("file:///tmp/mlruns", "sqlite:///PATH/mlflow.db"),
        ("mlflow.db", "(sqlite:///mlflow.db?)"),
        ("/data/mlflow.db", "(sqlite:////data/mlflow.db?)"),
        ("sqlite:////no/such/folder/mlflow.db", "the folder /no/such/folder is absent"),
        ("sqlite:////tmp", "is a folder"),
        ("http://user:pa/ss@word@127.0.0.1:9", "%2F"),
        ("mysql://u:geheim@127.0.0.1:9/x", "its driver is not installed"),
    ],
)
def test_an_address_that_can_never_work_is_refused(
    uri: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    answer = acceptance(target(uri))
    assert answer.kind == REFUSES
    assert text in answer.sentence
    assert "ss@word" not in answer.sentence
    assert "geheim" not in answer.sentence


def test_a_database_that_is_absent_or_empty_is_accepted_and_not_made(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert acceptance(target(f"sqlite:///{file}")).kind == ACCEPTS
    assert not file.exists()
    file.touch()
    assert acceptance(target(f"sqlite:///{file}")).kind == ACCEPTS


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("DROP TABLE alembic_version", "half-made"),
        ("UPDATE alembic_version SET version_num = 'cfd24bdc0731'", "mlflow db upgrade sqlite"),
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "newer MLflow"),
        ("DROP TABLE experiments", "something else"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(
    change: str, text: str, schema: Path, tmp_path: Path
) -> None:
    file = database(schema, tmp_path)
    with sqlite3.connect(file) as base:
        base.execute(change)
    answer = acceptance(target(f"sqlite:///{file}"))
    assert answer.kind == REFUSES
    assert text in answer.sentence


def test_files_that_are_no_database_or_read_only_are_refused(
    schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "notes.db"
    other.write_text("my notes " * 100)
    answer = acceptance(target(f"sqlite:///{other}"))
    assert answer.kind == REFUSES
    assert "not a database" in answer.sentence
    file = database(schema, tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "read-only" in acceptance(target(f"sqlite:///{file}")).sentence


def test_a_deleted_experiment_and_an_unknown_id_are_refused(schema: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{database(schema, tmp_path)}"
    client = MlflowClient(uri)
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    assert acceptance(target(uri, "other")).kind == ACCEPTS
    for experiment in ("gone", f"#{gone}"):
        answer = acceptance(target(uri, experiment))
        assert answer.kind == REFUSES
        assert f"mlflow experiments restore --experiment-id {gone}" in answer.sentence
    for experiment in ("#999", "#abc"):
        answer = acceptance(target(uri, experiment))
        assert answer.kind == REFUSES
        assert f"MLFLOW_EXPERIMENT_ID={experiment[1:]}: no such experiment" in answer.sentence


def test_an_artifact_store_that_takes_no_files_is_named_and_the_rest_accepted(
    schema: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{database(schema, tmp_path)}"
    MlflowClient(uri).create_experiment("proc", artifact_location="/proc/nope")
    answer = acceptance(target(uri, "proc"))
    assert answer.kind == ACCEPTS
    assert "/proc/nope cannot be written to" in answer.artifacts
    assert artifact_fault(str(tmp_path / "new" / "folder")) == ""
    assert artifact_fault(f"file://{tmp_path}") == ""
    assert artifact_fault("mlflow-artifacts:/1") == ""


@pytest.mark.parametrize(
    ("root", "package"),
    [("s3://key:geheim@bucket/x", "boto3"), ("gs://bucket/x", "google-cloud-storage")],
)
def test_an_artifact_store_without_its_package_is_told(
    root: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "find_spec", lambda name: None)
    assert f"pip install {package}" in artifact_fault(root)
    assert "geheim" not in artifact_fault(root)


def test_a_server_that_is_not_there_is_away_and_told_soon() -> None:
    start = time.monotonic()
    answer = acceptance(target("http://me:geheim@127.0.0.1:9"))
    assert answer.kind == AWAY
    assert "geheim" not in answer.sentence
    assert time.monotonic() - start < asked.PATIENCE_S + 5  # with the import of MLflow


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("401", REFUSES, "MLFLOW_TRACKING_USERNAME"),
        ("403", REFUSES, "the right to edit it"),
        ("404", REFUSES, "check the address"),
        ("409", REFUSES, "conflict"),
        ("413", REFUSES, "413"),
        ("429", AWAY, "429"),
        ("500", AWAY, "500"),
        ("503", AWAY, "503"),
        ("html", AWAY, "a login page"),
        ("{}", AWAY, "a login page"),
        (CLOSE, AWAY, "cannot be reached"),
    ],
)
def test_what_a_server_answers(fault: str, kind: str, text: str, faulty: FaultyServer) -> None:
    faulty.fail(fault)
    answer = acceptance(target(faulty.uri))
    assert answer.kind == kind, answer
    assert text in answer.sentence


def test_a_server_is_asked_for_the_experiment_and_the_right_to_write(faulty: FaultyServer) -> None:
    client = MlflowClient(faulty.uri)
    assert acceptance(target(faulty.uri)).kind == ACCEPTS
    assert client.get_experiment_by_name("asib") is None  # nothing was made
    number = client.create_experiment("asib")
    assert acceptance(target(faulty.uri)).kind == ACCEPTS
    assert acceptance(target(faulty.uri, f"#{number}")).kind == ACCEPTS
    assert acceptance(target(faulty.uri, "#999")).kind == REFUSES
    faulty.fail("403", "experiments/update")
    answer = acceptance(target(faulty.uri))
    assert answer.kind == REFUSES
    assert "may not write to experiment asib" in answer.sentence
    faulty.heal()
    client.delete_experiment(number)
    for name in ("asib", f"#{number}"):
        assert "experiments restore" in acceptance(target(faulty.uri, name)).sentence
