"""Benches of the method comparison: every method and rung composes in the published recipe."""

from __future__ import annotations

from functools import cache

import pytest

from pipeline.config import Config, compose
from pipeline.config.groups import options_of
from pipeline.identity import distill_config
from trainers.distill import plan

# bench → (teachers, student, learning rate) of the published numbers
PAIRS = {
    "sota_resnet8x4": ("resnet32x4", "resnet8x4", 0.05),
    "sota_shufflenet_v2": ("resnet32x4", "shufflenet_v2", 0.01),
    "sota_mobilenet_v2": ("resnet50", "mobilenet_v2", 0.01),
}
CHOICES = [f"{group}={name}" for group in ("cfg", "method") for name in options_of(group)]


@cache
def composed(bench: str, choice: str) -> Config:
    return compose([f"bench={bench}", choice])


def test_every_bench_of_the_comparison_is_tested() -> None:
    assert set(PAIRS) == {name for name in options_of("bench") if name.startswith("sota_")}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("bench", PAIRS)
def test_every_method_has_the_published_recipe(bench: str, choice: str) -> None:
    config = composed(bench, choice)
    teacher, student, lr = PAIRS[bench]
    assert [t.model for t in config.teachers()] == [teacher, teacher]
    assert len({t.seed for t in config.teachers()}) == 2
    assert config.student.model == student
    assert (config.data.name, config.optim.name, config.optim.lr) == ("cifar100", "sgd", lr)
    steps = [
        epoch
        for epoch in range(1, 240)
        if config.optim.lr_at(epoch, 1, 240) < config.optim.lr_at(epoch - 1, 1, 240)
    ]
    assert steps == [150, 180, 210]
    assert not any(config.mix.active(epoch, 240) for epoch in range(240))
    assert sum(slot.step == "B" for slot in plan(distill_config(config))) == 240
