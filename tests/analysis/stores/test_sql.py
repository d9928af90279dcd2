"""A database that is no store of MLflow is one sentence, without its password."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from analysis.runs import exported_experiment, load_runs
from analysis.stores.sql import SqlStore


def test_a_file_that_is_no_database_or_another_one(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello")
    (tmp_path / "empty.db").write_bytes(b"")
    with sqlite3.connect(tmp_path / "other.db") as base:
        base.execute("CREATE TABLE a (b INTEGER)")
        base.executemany("INSERT INTO a VALUES (?)", [(k,) for k in range(5000)])
    (tmp_path / "cut.db").write_bytes((tmp_path / "other.db").read_bytes()[:6000])
    for name, reason in (
        ("text", "not a database"),
        ("empty", "no such table"),
        ("other", "no such table"),
        ("cut", "malformed"),
    ):
        file = f"sqlite:///{tmp_path}/{name}.db"
        with pytest.raises(
            ValueError, match=f"{file} cannot be read as an MLflow store: .*{reason}"
        ):
            load_runs(file, "asib")


def test_a_server_that_is_away_or_lacks_its_driver_keeps_its_password() -> None:
    store = SqlStore.at("postgresql+psycopg://me:geheim@127.0.0.1:9/base?connect_timeout=2")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9/base.* cannot be read") as raised:
        store.experiments()
    assert "geheim" not in str(raised.value)
    with pytest.raises(ValueError, match="mysql://host/base cannot be opened") as raised:
        SqlStore.at("mysql://me:geheim@host/base")
    assert "geheim" not in str(raised.value)


def test_an_address_is_no_exported_file() -> None:
    with pytest.raises(ValueError, match=r"store=postgresql://host/b: .*MLFLOW_TRACKING_URI") as it:
        exported_experiment("postgresql://me:geheim@host/b")
    assert "geheim" not in str(it.value)
