"""Runs that several tests look at; made once for all workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end import command
from tests.end_to_end.server import Server


@pytest.fixture(scope="session")
def finished(schema: Path, made_once: Callable[[str, Callable], Path]) -> Iterator[Path]:
    """A folder in which a tiny L3 was run to its end, never interrupted. Tests that run
    something in it do so in a copy: other workers read it."""

    def fill(folder: Path) -> None:
        shutil.copy(schema, folder)
        command.run("distill", *command.L3, cwd=folder)

    folder = made_once("finished", fill)
    changed = (folder / "mlflow.db").stat().st_mtime_ns
    yield folder
    assert (folder / "mlflow.db").stat().st_mtime_ns == changed, "a test has run something in it"


@pytest.fixture
def clean(schema: Path, tmp_path: Path) -> Path:
    """A folder with an empty tracking store."""
    shutil.copy(schema, tmp_path)
    return tmp_path


@pytest.fixture
def with_teachers(finished: Path, clean: Path) -> Path:
    """A folder with the finished teachers and their banks, and no student."""
    command.copy_teachers(finished, clean)
    return clean


@pytest.fixture
def server(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running tracking server with an empty store."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(schema, folder)
    found = Server(folder)
    found.start()
    yield found
    found.stop()
