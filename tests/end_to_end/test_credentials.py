"""A random password in every address is found in nothing that is printed or written."""

from __future__ import annotations

import lzma
import secrets
import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end import command
from tests.faulty_server import FaultyServer

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


SWEEP = ("cfg=KD", "seed=0,1", "budget.student_epochs=2")
MODEL = (*command.TINY, "runtime.log_model=true", "runtime.register=students")
VERBS: list[tuple[int, tuple[str, ...]]] = [
    (
        0,
        ("distill", "cfg=KD", *command.TINY, "runtime.log_model=true", "runtime.register=students"),
    ),
    (1, ("distill", "cfg=CE", *command.TINY, "optim.lr=1e38")),  # with a traceback, if any
    (0, ("distill", "cfg=KD", "--cfg", "job")),
    (2, ("evaluate", "run=nothing")),
    (0, ("evaluate", "run=distill-KD-digits_all-s0", "split=val", "runtime.log_model=false")),
    (0, ("analyze",)),
    (2, ("analyze", "experiment=nothing")),
    (0, ("export", "out=runs.db.xz")),
    (0, ("distill", "-m", *SWEEP, *command.TINY[:2], *command.TINY[4:])),
    (0, ("sync", "runtime.log_model=false")),
]


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["http://user:{}@{}", "http://{}@{}"])
def test_everything_that_every_command_writes_to_a_server_and_here(
    form: str, with_teachers: Path, faulty: FaultyServer, tmp_path: Path
) -> None:
    """In records, tags, models, exports, pages, job files, journals: on this side and that."""
    password = secrets.token_hex(8)
    storage = f"sqlite:///file:{with_teachers}/studies.db?uri=true&token={password}"
    env = {
        "MLFLOW_TRACKING_URI": form.format(password, faulty.uri.removeprefix("http://")),
        "ASIB_STUDY_STORAGE": storage,
    }
    for expected, (verb, *words) in VERBS:
        code, output = command.Command(verb, *words, cwd=with_teachers, **env).end()
        assert code == expected, output
        assert password not in output, verb
    study = ("cfg=L1", "trials=1", "seeds=0", *command.TINY)
    code, output = command.Command("beta", *study, cwd=with_teachers, program="sweeps", **env).end()
    assert code == 0, output
    assert password not in output
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.name.endswith(".xz"):
                data = lzma.decompress(data)
            assert password.encode() not in data, path
