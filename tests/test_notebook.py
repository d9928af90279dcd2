"""The notebook of the documents: its cells run one after the other, in an empty folder."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import analysis
import pipeline
from pipeline.config.groups import CONF
from tests.end_to_end import conftest as runs

clean = runs.clean
NOTEBOOK = CONF.parent / "docs" / "first_steps.ipynb"


def test_every_cell_runs(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clean)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "DRY_RUN"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGINT)
    book, names = json.loads(NOTEBOOK.read_text(encoding="utf-8")), dict[str, object]()
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    assert len(names["students"]) == 1  # type: ignore[arg-type]
    assert names["students"]["status"].tolist() == ["FINISHED"]  # type: ignore[index]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_packages_have_nothing_else() -> None:
    for package in (analysis, pipeline):
        with pytest.raises(AttributeError, match="has no attribute 'nope'"):
            package.nope  # noqa: B018
