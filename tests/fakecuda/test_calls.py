"""No step of any rung, switch or method waits for the GPU, and none calls it more often than in
the committed table (calls.json). Counted on the stand-in for the CUDA runtime, without a GPU.

A change that lowers a number renews the table with what
`python -m pytest tests/fakecuda -m thorough -s` prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.cases import NAMES, steps_of
from tests.fakecuda.build import build, missing
from tests.fakecuda.counts import BARE, SCALED

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
TABLE = json.loads(Path(__file__).with_name("calls.json").read_text())
WAITING_STEP = """
import torch
from tests.fakecuda.counts import LIBRARY, counts

x = torch.zeros(8, device="cuda")
LIBRARY.fakecuda_reset()
x.add_(1)
assert (counts()["kernels"], counts()["waits"]) == (1, 0)
x.sum().item()
assert counts()["waits"] == 1
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    x.add_(1)
    x.mul_(2)
LIBRARY.fakecuda_reset()
graph.replay()
assert (counts()["kernels"], counts()["graphs"]) == (0, 1)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return os.environ | build(tmp_path_factory.mktemp("fakecuda"))


def _python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_stand_in_counts_kernels_waits_and_graphs(environment: dict[str, str]) -> None:
    _python(environment, "-c", WAITING_STEP)


def test_no_step_waits_or_calls_more_often_than_in_the_table(environment: dict[str, str]) -> None:
    lines = _python(environment, "-m", "tests.fakecuda.counts").splitlines()
    found = {row.pop("name"): row for row in map(json.loads, lines)}
    steps = [f"{name} {step}" for name in NAMES for step in steps_of(name)]
    steps += [f"{name} float16 {step}" for name in SCALED for step in steps_of(name)]
    assert list(found) == list(TABLE["calls"]) == [BARE, *steps]
    assert {name: row["waits"] for name, row in found.items() if row["waits"]} == {}
    calls = {name: row["calls"] for name, row in found.items()}
    print(json.dumps(calls, indent=1))
    if torch.__version__ != TABLE["torch"]:
        pytest.skip(f"the table is of torch {TABLE['torch']}")
    more = {
        name: (n, TABLE["calls"][name]) for name, n in calls.items() if n > TABLE["calls"][name]
    }
    assert not more, "calls of a step and the most that the table allows"
