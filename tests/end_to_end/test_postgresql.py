"""Tracking, the storage of a study and analysis on a real PostgreSQL on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_history, load_runs
from tests.end_to_end import command

PASSWORD = "pa/ss@word"
QUOTED = "pa%2Fss%40word"


def _program(name: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name) or next(
        (str(place / name) for place in places if (place / name).exists()), None
    )
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`postgresql://…@127.0.0.1:PORT/`, to which the name of a database is added."""
    folder = tmp_path_factory.mktemp("postgresql")
    initdb, ctl = _program("initdb"), _program("pg_ctl")
    user = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = "postgres"
        shutil.chown(folder, "postgres")
        for parent in folder.parents:
            if parent.owner() == "root" and not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*words: str) -> None:
        subprocess.run(words, check=True, cwd="/", stdout=subprocess.DEVNULL, user=user, group=user)

    secret = folder / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data, options = str(folder / "data"), f"-F -p {port} -h 127.0.0.1 -k {folder}"
    run(initdb, "-D", data, "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "-N")
    run(ctl, "-D", data, "-o", options, "-w", "-l", str(folder / "log"), "start")
    yield f"postgresql://me:{QUOTED}@127.0.0.1:{port}/"
    run(ctl, "-D", data, "-m", "immediate", "stop")


def _make(address: str, *names: str) -> None:
    import psycopg

    with psycopg.connect(f"{address}postgres", autocommit=True) as base:
        for name in names:
            base.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]


@pytest.mark.thorough
def test_tracking_studies_and_analysis(address: str, with_teachers: Path) -> None:
    _make(address, "mlflow", "studies")
    uri = f"{address}mlflow?sslmode=prefer"
    env = {
        "MLFLOW_TRACKING_URI": uri,
        "ASIB_STUDY_STORAGE": f"{address}studies?sslmode=prefer",
    }
    words = ("trials=2", "seeds=0", "workers=1", *command.L3)
    output = command.run("beta", *words, cwd=with_teachers, program="sweeps", **env)
    output += command.run("sync", cwd=with_teachers, **env)
    output += command.run("analyze", "experiment=asib/beta", cwd=with_teachers, **env)
    assert "synced   0 runs" in output
    runs = load_runs(uri, "asib/beta")
    students = runs[runs[f"tags.{tags.STAGE}"] == "distill"]
    assert list(students.status) == ["FINISHED"] * 2
    assert len(load_history(uri, list(students.run_id), ["val/top1"])) > 0
    assert PASSWORD not in output
    assert QUOTED not in output


def test_a_wrong_password_and_an_absent_database_are_refused(
    address: str, with_teachers: Path
) -> None:
    for uri in (address.replace(QUOTED, "wrong") + "postgres", f"{address}absent"):
        output = command.run(
            "distill", "cfg=CE", *command.TINY, cwd=with_teachers, code=2, MLFLOW_TRACKING_URI=uri
        )
        assert "it cannot be opened" in output
        assert QUOTED not in output
