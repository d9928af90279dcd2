"""Benches and budgets: every method and rung composes with them, in the published recipe where the
bench has one."""

from __future__ import annotations

from functools import cache

import pytest

from pipeline.config import Config, ConfigError, compose
from pipeline.config.groups import options_of
from pipeline.identity import distill_config
from trainers.distill import plan

# bench → (teachers, student, learning rate) of the published numbers
PAIRS = {
    "sota_resnet8x4": ("resnet32x4", "resnet8x4", 0.05),
    "sota_shufflenet_v2": ("resnet32x4", "shufflenet_v2", 0.01),
    "sota_mobilenet_v2": ("resnet50", "mobilenet_v2_half", 0.01),
}
NO_GATE = "data.val_fraction=0: the gate reads synergy accuracy on validation images"
CHOICES = [f"{group}={name}" for group in ("cfg", "method") for name in options_of(group)]


@cache
def composed(bench: str, choice: str) -> Config:
    return compose([f"bench={bench}", choice])


def errors_of(overrides: list[str]) -> list[str]:
    try:
        compose(overrides)
    except ConfigError as error:
        return error.errors
    return []


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


@pytest.mark.parametrize("method", options_of("method"))
def test_a_budget_of_schedules_composes_with_every_method(method: str) -> None:
    config = compose([f"method={method}", "budget=long"])
    assert (config.budget.student_epochs, config.optim.name, config.mix.stop) == (240, "sgd", 160)
    if method == "asib":  # its recipes have lengths of their own
        assert (config.method.kd_warmup_epochs, config.method.kd_cooldown_epochs) == (10, 60)


def test_the_optimiser_of_a_budget_is_whole() -> None:
    """No half of it is left to a bench whose optimiser has another schedule."""
    alone, bench = (
        compose([*more, "budget=long"]).optim for more in ([], ["bench=sota_resnet8x4"])
    )
    assert bench.lr_at(1000, 100, 240) == alone.lr_at(1000, 100, 240)


# The rungs are one method: the first and the last stand for all. tests/test_project.py composes
# every rung on every bench.
OF_EACH_METHOD = ["cfg=CE", "cfg=L4", *(f"method={name}" for name in options_of("method"))]


@pytest.mark.thorough
@pytest.mark.parametrize("bench", options_of("bench"))
@pytest.mark.parametrize("budget", options_of("budget"))
def test_every_budget_method_and_bench_compose(budget: str, bench: str) -> None:
    found = {one: errors_of([f"bench={bench}", f"budget={budget}", one]) for one in OF_EACH_METHOD}
    # One bench has no validation images, which the gate of most rungs reads.
    allowed = ([], [NO_GATE]) if bench.startswith("literature_") else ([],)
    assert not {one: errors for one, errors in found.items() if errors not in allowed}
