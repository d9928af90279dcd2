"""Any damage to any file of a finished store: the next command makes the file again, brings it
back, or says in one message which folder to move away; and then everything is as it was."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end import command


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"?" * 9),
    "binary": lambda path: path.write_bytes(os.urandom(300)),
    "list": lambda path: path.write_text("[1, 2]"),
    "text": lambda path: path.write_text('"text"'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": _folder,
    "absent": lambda path: path.unlink(),
}
FILES = {  # what is printed of a damage that cannot be mended by itself, empty: it is mended
    "finetune/*/result.json": "move its folder away",
    "distill/*/result.json": "move its folder away",
    "finetune/*/spec.json": "",
    "distill/*/spec.json": "",
    "finetune/*/tracking-*.json": "",
    "distill/*/tracking-*.json": "",
    "bank/*/bank.json": "",
    "bank/*/part-000000.*.safetensors": "",
    "bank/*/val.*.safetensors": "",
    "bank/*/seconds-*.json": "",
    "finetune/*/teacher.*.safetensors": "",
    "distill/*/student.*.safetensors": "",
}


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of a folder with a finished run, its tracking store and artifacts."""
    folder = tmp_path / "copy"
    command.copy_finished(finished, folder)
    return folder


def _one(store: Path, pattern: str) -> Path:
    return sorted((store / "store" / "runs").glob(pattern))[0]


def _again(store: Path) -> str:
    """Run the command, after doing what it asks for."""
    code, output = command.Command("distill", *command.L3, cwd=store).end()
    assert "Traceback" not in output
    if code == 2:
        (move,) = re.findall(r"\((mv [^)]*)\)", output)
        subprocess.run(move, shell=True, check=True)
        (moved,) = (store / "store" / "runs").glob("*/*.damaged")
        shutil.rmtree(moved)
        code, output = command.Command("distill", *command.L3, cwd=store).end()
    assert code == 0, output
    return output


def _is_whole(store: Path, finished: Path, moved: str | None) -> None:
    """All files are there once another student has needed them, but for those of a teacher that
    was moved away: a student that is reused needs none."""
    assert command.student_digest(store) == command.student_digest(finished)
    command.run("distill", *command.L3, "seed=7", cwd=store)
    for path in (finished / "store" / "runs").glob("*/*/*"):
        if path.parent.name != moved and re.search(
            r"(result|spec|bank)\.json$|safetensors$", path.name
        ):
            assert (store / path.relative_to(finished)).is_file(), path
    output = command.run("sync", cwd=store)
    assert "left out" not in output + command.run("sync", cwd=store)


def _damaged(store: Path, finished: Path, pattern: str, damage: str) -> None:
    path = _one(store, pattern)
    moved = path.parent.name if pattern == "finetune/*/result.json" else None
    DAMAGES[damage](path)
    for other in (["sync"], ["distill", *command.L3, "seed=7"]):  # which need another run
        code, output = command.Command(
            *other, cwd=store, DRY_RUN="1" if other[0] == "distill" else ""
        ).end()
        assert "Traceback" not in output
        assert code == 0 or (FILES[pattern] and FILES[pattern] in output), output
    _again(store)
    _is_whole(store, finished, moved)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("distill/*/result.json", "truncated"),
        ("finetune/*/spec.json", "folder"),
        ("bank/*/bank.json", "list"),
        ("finetune/*/teacher.*.safetensors", "flipped"),
    ],
)
def test_a_damaged_file_is_no_dead_end(
    store: Path, finished: Path, pattern: str, damage: str
) -> None:
    _damaged(store, finished, pattern, damage)


@pytest.mark.by_hand
@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", FILES)
def test_no_damage_to_any_file_is_a_dead_end(
    store: Path, finished: Path, pattern: str, damage: str
) -> None:
    if pattern.endswith("result.json") and damage == "absent":
        pytest.skip("an absent result is a run that has not finished")
    _damaged(store, finished, pattern, damage)


@pytest.mark.thorough
def test_weights_that_are_nowhere_are_trained_again_and_replace_their_run(
    store: Path, finished: Path
) -> None:
    _one(store, "finetune/*/teacher.*.safetensors").unlink()
    _one(store, "distill/*/student.*.safetensors").unlink()
    shutil.rmtree(store / "mlruns")
    output = _again(store)
    assert output.count("no artifact store has it") == 2
    assert output.count("finished ") == 2
    assert command.student_digest(store) == command.student_digest(finished)
    assert "repaired" not in command.run("sync", cwd=store)
    base = sqlite3.connect(store / "mlflow.db")
    active = "SELECT status FROM runs WHERE lifecycle_stage = 'active'"
    assert [one for (one,) in base.execute(active)] == ["FINISHED"] * 5  # two launches
