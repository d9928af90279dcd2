"""Commands from their options to the end on a device that is a GPU to torch: what is on the wrong
device, or cannot run on a GPU, ends them. On the stand-in for the CUDA runtime no kernel runs, so
that all numbers are 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakecuda.build import build, missing

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
COMMAND = """
import runpy

import pipeline
from trainers import distill, finetune

distill.check_finite = finetune.check_finite = lambda *networks: None  # 0 is "not finite" too
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""
SMALL = (
    "bench=digits_all",
    "budget.student_epochs=4",
    "budget.adapt_epochs=4",
    "teacher.0.recipe.epochs=1",
    "teacher.1.recipe.epochs=1",
    "runtime.device=cuda",
    "runtime.graph=off",
)


class Machine:
    """A folder with a store, on a machine with the stand-in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = os.environ | build(folder / "fakecuda")
        self._environment |= {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",  # new memory is 0
        }

    def run(self, verb: str, *options: str) -> str:
        """What a command prints; it must end with 0, and use repeatable kernels alone."""
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, verb, f"runtime.store={self._folder}/store", *options],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        assert "determinis" not in done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("commands"))


def test_a_student_is_trained_logged_and_evaluated(machine: Machine) -> None:
    text = machine.run("distill", *SMALL, "cfg=L3", "method.ema_weight=0.5")
    assert "Failed to validate" not in text, "its model does not load on a machine with a GPU"
    (key,) = re.findall(r"finished +distill-L3-\S+ +key (\w+)", text)
    assert "logged" in machine.run("evaluate", f"run={key}", "runtime.device=cuda")


@pytest.mark.parametrize(
    "options",
    [
        ("cfg=L2", "numerics=float16", "data.train_limit=600", "data.unlabelled=all"),
        ("cfg=self", "numerics=tf32"),
        ("cfg=L2", "method.query=live", "method.target_view=same"),
        ("method=crd",),
    ],
    ids=" ".join,
)
def test_other_ways_to_train(options: tuple[str, ...], machine: Machine) -> None:
    machine.run("distill", *SMALL, "runtime.log_model=false", *options)
