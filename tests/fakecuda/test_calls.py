"""No step of any rung, switch or method waits for the GPU or lacks a repeatable kernel, and none
calls it more often than in the committed table (calls.json): hundreds of times, or, as a CUDA
graph, a few times. Counted on the stand-in for the CUDA runtime, without a GPU.

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


FAILED_RECORDING = """
import io
import logging

import torch
from trainers.loop import Progress, run_steps
from trainers.step_graph import Graphs

logging.basicConfig(stream=(lines := io.StringIO()))
weight = torch.zeros(8, device="cuda")
graphs = Graphs(weight.device)

def step(i):
    weight.add_(torch.rand(8, device="cuda"))
    return {"value": weight.sum() + float(weight.sum())}

for number in range(2):
    run_steps(Progress(), 9, step, lambda: False, (0, "student", number), graphs=graphs)
(line,) = lines.getvalue().splitlines()
assert line.endswith("a graph: CUDA error: operation not permitted when stream is capturing"), line

def step(i):
    return {"value": torch.rand(8, device="cuda").sum()}

means = run_steps(Progress(), 9, step, lambda: False, (0, "fusion", 0), graphs=graphs)
assert means["cost/graph_steps"] == 6 / 9, means
"""
NETWORKS = """
import warnings

import torch
from trainers import models
from trainers.models import registry
from trainers.numerics import use_repeatable_kernels

use_repeatable_kernels()
warnings.simplefilter("error")
for name in registry.names():
    if name not in ("convnext_l", "efficientnet_l2"):  # large
        net = models.build(name, 100, 32).cuda().train()
        net(torch.randn(4, 3, 32, 32, device="cuda")).sum().backward()
"""
ONE_BY_ONE = ("L2 folds A",)  # its batches differ in size


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return os.environ | build(tmp_path_factory.mktemp("fakecuda"))


def _python(environment: dict[str, str], *arguments: str) -> str:
    """What Python prints; with repeatable kernels torch warns of an operation that has none."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "determinis" not in done.stderr
    return done.stdout


def test_the_stand_in_counts_kernels_waits_and_graphs(environment: dict[str, str]) -> None:
    _python(environment, "-c", WAITING_STEP)


def test_a_step_that_cannot_be_recorded_runs_and_the_next_recording_works(
    environment: dict[str, str],
) -> None:
    _python(environment, "-c", FAILED_RECORDING)


def test_no_network_lacks_a_repeatable_kernel(environment: dict[str, str]) -> None:
    _python(environment, "-c", NETWORKS)


def test_no_step_waits_or_calls_more_often_than_in_the_table(environment: dict[str, str]) -> None:
    lines = _python(environment, "-m", "tests.fakecuda.counts").splitlines()
    found = {row.pop("name"): row for row in map(json.loads, lines)}
    steps = [f"{name} {step}" for name in NAMES for step in steps_of(name)]
    steps += [f"{name} float16 {step}" for name in SCALED for step in steps_of(name)]
    as_graphs = [f"{step} graph" for step in steps if step not in ONE_BY_ONE]
    assert list(found) == list(TABLE["calls"]) == [BARE, *steps, *as_graphs]
    assert {name: row["waits"] for name, row in found.items() if row["waits"]} == {}
    assert {(found[name]["graphs"], found[name]["illegal"]) for name in as_graphs} == {(1, 0)}
    assert max(found[name]["calls"] for name in as_graphs) <= 5
    for name in as_graphs:  # all of the step is in the graph, with what it reads by its counter
        alone = found[name.removesuffix(" graph")]["calls"]
        assert 0.9 * alone <= found[name]["nodes"] <= alone + 40, name
    calls = {name: row["calls"] for name, row in found.items()}
    print(json.dumps(calls, indent=1))
    if torch.__version__ != TABLE["torch"]:
        pytest.skip(f"the table is of torch {TABLE['torch']}")
    more = {
        name: (n, TABLE["calls"][name]) for name, n in calls.items() if n > TABLE["calls"][name]
    }
    assert not more, "calls of a step and the most that the table allows"
