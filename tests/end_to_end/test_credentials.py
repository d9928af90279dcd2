"""A random password in every address is found in nothing that is printed or written."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end import command

FORMS = [
    "http://user:{}@127.0.0.1:9",
    "http://user:pa/{}@x@127.0.0.1:9",
    "http://127.0.0.1:9/?token={}",
    "postgresql://user:{}@127.0.0.1:9/mlflow",
]


def _written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", FORMS)
def test_the_tracking_address(form: str, with_teachers: Path) -> None:
    password = secrets.token_hex(8)
    child = command.Command(
        "distill",
        "cfg=CE",
        *command.TINY,
        "runtime.sync_timeout_s=0.2",
        cwd=with_teachers,
        MLFLOW_TRACKING_URI=form.format(password),
    )
    code, output = child.end()
    assert code in (0, 2), output
    assert "127.0.0.1:9" in output
    assert password not in output
    assert password.encode() not in _written(with_teachers)


def test_the_storage_of_a_study(with_teachers: Path) -> None:
    password = secrets.token_hex(8)
    address = f"postgresql://user:{password}@127.0.0.1:9/studies"
    words = ("cfg=L1", "trials=1", "seeds=0", *command.TINY)
    child = command.Command(
        "beta", *words, cwd=with_teachers, program="sweeps", ASIB_STUDY_STORAGE=address
    )
    code, output = child.end()
    assert code == 2, output
    assert "ASIB_STUDY_STORAGE=postgresql://127.0.0.1:9/studies" in output
    assert password not in output
    assert password.encode() not in _written(with_teachers)


def test_a_token_that_is_given_apart(with_teachers: Path) -> None:
    """It is in no parameter, tag or record, and an error that quotes it hides it."""
    token = secrets.token_hex(8)
    output = command.run(
        "distill",
        "cfg=CE",
        f"student.model={token}",
        cwd=with_teachers,
        code=2,
        MLFLOW_TRACKING_TOKEN=token,
    )
    assert "student.model=***" in output
    with sqlite3.connect(with_teachers / "mlflow.db") as base:
        assert not base.execute("SELECT * FROM tags WHERE value LIKE ?", (f"%{token}%",)).fetchall()
