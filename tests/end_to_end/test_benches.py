"""Benches whose data sets are large, on small files in their real format with the smallest
networks of timm: two teachers are fine-tuned, and a student is distilled with the highest rung."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis import tags
from analysis.runs import load_runs
from tests.end_to_end import command
from tests.trainers.data import files
from trainers import metrics

pytestmark = pytest.mark.thorough

# Two teachers of different kinds and a student, with 32-pixel images; a few epochs of everything.
NETS = (
    "teacher.0.model=timm:test_resnet",
    "teacher.1.model=timm:test_efficientnet",
    "student.model=timm:test_resnet",
    "teacher.0.pretrained=false",
    "teacher.1.pretrained=false",
)
SMALL = (
    "budget.student_epochs=4",
    "budget.adapt_epochs=4",
    "optim.batch=10",
    "data.views=2",
    "teacher.0.recipe.epochs=1",
    "teacher.1.recipe.epochs=1",
    "teacher.0.recipe.optim.batch=10",
    "teacher.1.recipe.optim.batch=10",
    "bench.enable_kd_after_syn_acc=0",
    "method.token_dim=16",
    "runtime.log_model=false",
    "runtime.commit_every_s=1",
)


def _cifar(root: Path) -> list[str]:
    files.write_cifar(root, "cifar100")
    return []


def _imagenet(root: Path) -> list[str]:
    files.write_imagenet(root)
    return ["data.classes=10", "numerics=float32"]


def _folder(root: Path) -> list[str]:
    files.write_image_folder(root)
    return ["data.classes=2", "data.image_size=32"]


@pytest.mark.parametrize(
    ("bench", "write"),
    [
        ("cifar100", _cifar),
        ("cifar100_small", _cifar),
        ("imagenet32", _imagenet),
        ("folder", _folder),
    ],
)
def test_the_chain_runs_from_files_in_the_real_format(
    bench: str, write: Callable[[Path], list[str]], clean: Path
) -> None:
    root = clean / "images"
    root.mkdir()
    more = write(root)
    command.run(
        "distill", f"bench={bench}", "cfg=L4", f"data.root={root}", *NETS, *SMALL, *more, cwd=clean
    )
    runs = load_runs(f"sqlite:///{clean}/mlflow.db", "asib").set_index("name")
    student = runs.loc[f"distill-L4-{bench}-s0"]
    assert student["status"] == "FINISHED"
    assert student[f"metrics.{metrics.TEST_READS}"] == 1
    assert 0 <= student[f"metrics.{metrics.TEST_TOP1}"] <= 1
    given = "float32" if "numerics=float32" in more else "bfloat16"
    assert student["params.numerics.precision"] == given
    assert (runs[f"tags.{tags.STAGE}"] == "finetune").sum() == 2


def test_the_protocol_of_the_public_tables(clean: Path) -> None:
    """All images train, the last epoch counts, nothing is validated, test is read once."""
    root = clean / "images"
    root.mkdir()
    _cifar(root)
    small = [option for option in SMALL if not option.startswith(("data.views", "method."))]
    command.run(
        "distill",
        "bench=literature_resnet8x4",
        "method=kd",
        f"data.root={root}",
        *NETS,
        *small,
        cwd=clean,
    )
    runs = load_runs(f"sqlite:///{clean}/mlflow.db", "asib").set_index("name")
    student = runs.loc["distill-kd-literature_resnet8x4-s0"]
    assert student["params.select"] == "last"
    assert student[f"metrics.{metrics.TEST_READS}"] == 1
    assert np.isnan(student.get(f"metrics.{metrics.VAL_TOP1}", np.nan))
    (split,) = {run["params.data.val_fraction"] for _, run in runs.iterrows()} - {None, np.nan}
    assert float(split) == 0
