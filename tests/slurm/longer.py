"""A student that trains long enough to be interrupted, and the checks of its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mlflow import MlflowClient

from analysis import tags
from analysis.runs import load_runs
from tests.end_to_end import command
from tests.slurm.cluster import Cluster
from trainers import metrics

A_STEP = 4  # epochs


def longer(epochs: int = 40) -> tuple[str, ...]:
    """Overrides of the student; an epoch takes about half a second."""
    tiny = [o for o in command.TINY if not o.startswith("budget.student_epochs")]
    return (
        "cfg=L1",
        f"budget.student_epochs={epochs}",
        "method.token_dim=16",
        "method.heads=2",
        *tiny,
    )


def uninterrupted(cwd: Path, overrides: tuple[str, ...]) -> str:
    """The file of the weights (their sha256 is in its name) of an undisturbed run."""
    folder = cwd / "alone"
    shutil.copytree(cwd / "store", folder / "store")
    shutil.copy(cwd / "mlflow.db", folder)
    command.run("distill", *overrides, cwd=folder)
    (path,) = (folder / "store/runs/distill").glob("*/student.*.safetensors")
    return path.name


def checkpointed(cluster: Cluster, cwd: Path, students: int = 1) -> dict[str, str]:
    """Wait until so many students have a checkpoint; the jobs of the multirun by name."""
    store = cwd / "store/runs/distill"
    cluster.wait(
        lambda: len({path.parent for path in store.glob("*/commit-*.pt")}) == students,
        180,
        "checkpoint of each student",
    )
    files = list((cwd / "store/multirun").glob("*/slurm.json"))
    return {k: v for path in files for k, v in json.loads(path.read_text()).items()}


def bit_equal(cwd: Path, alone: str) -> None:
    """The run resumed from a checkpoint to the same weights; no epoch is missing or repeated."""
    assert list((cwd / "store/runs/distill").glob(f"*/{alone}"))
    logs = [p for end in ("out", "log") for p in cwd.rglob(f"*.{end}")]
    assert any("resumed  distill-L1-digits_all-s0" in log.read_text() for log in logs)
    uri = f"sqlite:///{cwd}/mlflow.db"
    runs = load_runs(uri, "asib")
    for run in runs[runs[f"tags.{tags.STAGE}"] == "distill"]["run_id"]:
        losses = MlflowClient(tracking_uri=uri).get_metric_history(run, metrics.LOSS_TOTAL)
        epochs = len({point.step for point in losses})
        assert epochs > A_STEP
        assert sorted(point.step for point in losses) == list(range(epochs))
