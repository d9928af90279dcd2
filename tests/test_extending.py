"""docs/extending.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.config.groups import CONF

ROOT = CONF.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
TREE = ("analysis", "conf", "pipeline", "trainers")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.M | re.S)
TINY = (
    "data.train_limit=100",
    "optim.batch=20",
    "budget.student_epochs=2",
    "teacher.0.recipe.epochs=1",
    "teacher.1.recipe.epochs=1",
    "runtime.log_model=false",
    "runtime.device=cpu",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite tracking store: making its schema takes longer than these runs."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the source tree."""
    ignore = shutil.ignore_patterns("__pycache__")
    for part in TREE:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignore)
    return tmp_path


def follow(title: str, project: Path) -> list[str]:
    """Do what a section of the page says; give the commands that it ends with."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    commands: list[str] = []
    for block in BLOCK.finditer(section):
        language, code = block[2], textwrap.dedent(block[3])
        before = section[: block.start()].rpartition("```")[2]
        paths = re.findall(r"`([\w./]+\.(?:py|yaml))`", before)
        if language == "bash":
            commands += code.splitlines()
        elif language == "diff":
            _add_lines(project / paths[-1], re.findall(r"`([A-Z]+)`", before)[-1], code)
        elif paths:
            (project / paths[-1]).write_text(code, encoding="utf-8")
        else:
            _python(project, "-c", code)
    return commands


def _add_lines(path: Path, registry: str, diff: str) -> None:
    """The import above the registry, the entry into it."""
    added = [line.removeprefix("+") for line in diff.splitlines()]
    imports, entries = added[:-1], added[-1]
    text = path.read_text(encoding="utf-8")
    (opening,) = re.findall(rf"^{registry}\b.*\{{", text, re.M)
    new = "\n".join([*imports, "", f"{opening}\n{entries}\n"])
    path.write_text(text.replace(opening, new), encoding="utf-8")


def _python(project: Path, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project)} | env,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def distil(command: str, project: Path, store: str) -> dict:
    """Run a command of the page at a tiny budget; the result of its student."""
    python, *arguments = shlex.split(command)
    assert python == "python"
    _python(project, *arguments, *TINY, MLFLOW_TRACKING_URI=store)
    (path,) = (project / "store" / "runs" / "distill").glob("*/result.json")
    return json.loads(path.read_text())["body"]


def test_a_method(project: Path, store: str) -> None:
    (command,) = follow("A method", project)
    result = distil(command, project, store)
    last = result["history"][-1]["metrics"]
    assert last["train/loss/mse"] > 0
    assert last["train/loss/total"] == pytest.approx(
        last["train/loss/ce"] + last["train/loss/mse"], rel=1e-5
    )
    assert len(list((project / "store/runs/finetune").glob("*/result.json"))) == 2


def test_a_model(project: Path, store: str) -> None:
    (command,) = follow("A model", project)
    result = distil(command, project, store)
    convolutions = 9 * (8 + 8 * 16 + 16 * 32)
    norms, head = 2 * (8 + 16 + 32), 32 * 10 + 10
    assert result["metrics"]["cost/parameters"] == convolutions + norms + head


def test_a_data_set(project: Path, store: str) -> None:
    (command,) = follow("A data set", project)
    result = distil(command, project, store)
    assert result["metrics"]["test/top1"] >= 0.4
    spec = next((project / "store/runs/distill").glob("*/spec.json"))
    assert json.loads(spec.read_text())["body"]["data"]["name"] == "arrays"


def test_the_pages_are_made_by_the_command_that_is_named(project: Path) -> None:
    (command,) = follow("Afterwards", project)
    (project / "benchmarks").mkdir()
    _python(project, *shlex.split(command)[1:])
    assert (project / "docs" / "configuration.md").is_file()
