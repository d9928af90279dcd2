"""The schema of a SQLite store is made in one step, and a half-made one is recognised."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import ACCEPTS
from pipeline.tracking.database import make_sqlite, revisions, schema_fault
from pipeline.tracking.target import TrackingTarget


def test_a_start_that_is_killed_at_any_point_leaves_no_database(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"

    def killed(uri: str) -> None:
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as base:
            base.execute("CREATE TABLE experiments (name)")
        raise KeyboardInterrupt

    for existing in (False, True):  # an empty file counts as absent
        if existing:
            file.touch()
        with pytest.raises(KeyboardInterrupt):
            make_sqlite(f"sqlite:///{file}", killed)
        assert file.exists() == existing
        assert not existing or file.stat().st_size == 0


def test_what_a_killed_start_left_is_cleared_and_a_whole_store_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    (tmp_path / ".mlflow.db.0123.new").write_text("x")
    (tmp_path / ".mlflow.db.0123.new-journal").write_text("x")
    make_sqlite(
        f"sqlite:///{file}", lambda uri: Path(uri.removeprefix("sqlite:///")).write_text("1")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    make_sqlite(f"sqlite:///{file}", lambda uri: pytest.fail("made again"))
    assert file.read_text() == "1"


def test_servers_and_other_databases_are_left_alone() -> None:
    for uri in ("http://host:5000", "postgresql://host/db"):
        make_sqlite(uri, lambda uri: pytest.fail("made"))


def test_one_revision_is_the_newest() -> None:
    assert list(revisions().values()).count(False) == 1


def test_a_new_database_has_no_fault_and_a_whole_one_neither() -> None:
    newest = next(name for name, outdated in revisions().items() if not outdated)
    assert schema_fault(set(), None, "x") is None
    assert schema_fault({"experiments", "alembic_version"}, newest, "x") is None


@pytest.mark.thorough
@pytest.mark.parametrize("delay_s", [0.2, 0.6, 1.0, 1.4, 1.8, 2.5])
def test_kills_while_the_schema_is_made(tmp_path: Path, delay_s: float) -> None:
    uri, mark = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "ready"
    script = (
        "import mlflow, pathlib\n"
        "from pipeline.tracking.target import TrackingTarget\n"
        f"pathlib.Path({str(mark)!r}).touch()\n"
        f"TrackingTarget({uri!r}, 'asib', None, 'v', pathlib.Path({str(tmp_path)!r})).client()"
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    while not mark.exists():
        time.sleep(0.01)
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    found = TrackingTarget(uri, "asib", None, "v", tmp_path)
    assert acceptance(found).kind == ACCEPTS
    assert found.experiment_id()
