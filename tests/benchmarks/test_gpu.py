"""The benchmark of GPUs: its rungs are those of the ladder, and its checks hold on a GPU."""

import pytest
import torch

from benchmarks.gpu import checks
from benchmarks.gpu.cases import (
    CLASSES,
    NAMES,
    RUNGS,
    Scale,
    config,
    data_of,
    random_data,
    random_teachers,
    steps_of,
    work,
)
from pipeline.config import compose
from pipeline.identity import distill_config
from trainers.numerics import Numerics, use_repeatable_kernels

CPU = torch.device("cpu")
SMALL = Scale("resnet8", "resnet8", images=32, batch=16, views=1, epochs=8)
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("rung", RUNGS)
def test_rungs_are_those_of_the_ladder(rung: str) -> None:
    overrides = ["bench=cifar100_small", f"cfg={rung}", "method.enable_kd_after_syn_acc=0"]
    composed = distill_config(compose(overrides))
    ours = config(rung, Scale())
    assert ours.method == composed.method
    assert (ours.mix, ours.data.mean, ours.data.std, ours.data.crop_pad) == (
        composed.mix,
        composed.data.mean,
        composed.data.std,
        composed.data.crop_pad,
    )


@pytest.mark.parametrize("name", ["CE", "self", "L3", "L2 unlabelled"])
def test_every_step_of_a_case_trains(name: str) -> None:
    data = data_of(name, random_data(SMALL, CPU, val=CLASSES))
    teachers = random_teachers(SMALL, data)
    for step in steps_of(name):
        ready = work(config(name, SMALL), data, teachers, step)
        before = [p.clone() for p in ready.learning()]
        ready.epoch()
        assert any(not torch.equal(a, b) for a, b in zip(before, ready.learning(), strict=True))


@gpu
@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_and_runs_are_repeatable(name: str) -> None:
    use_repeatable_kernels()
    row = checks.report(name, Numerics(), torch.device("cuda"))
    assert all(row[f"waits {step}"] < 0.5 for step in steps_of(name)), row
    assert row["relative to CPU"] < 1e-3
    assert all(same for check, same in row.items() if check.startswith("same")), row
    of_graphs = [step for step in steps_of(name) if (name, step) != ("L2 folds", "A")]
    assert all(row[f"launches of a graph {step}"] <= 5 for step in of_graphs), row
