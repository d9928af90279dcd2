"""Schedules against independent closed forms, and as a run really sets them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers import tiny
from tests.trainers.tiny import Run, World
from trainers.finetune import FinetuneState, finetune
from trainers.methods.asib.config import AsibConfig
from trainers.methods.asib.method import Asib
from trainers.methods.base import Dims, StepPosition
from trainers.optim import OptimConfig
from trainers.schedules import cooldown, cosine_lr, even_split, kd_weight, ramp, rise_from_zero

quick = settings(deadline=None, max_examples=60, derandomize=True)


def closed_form(step: int, total: int, base: float, floor: float, warm: int) -> float:
    """base·(i+1)/W, then floor + (base - floor)·cos²(πp/2), p from 0 to 1 over the rest."""
    if step < warm:
        return base / warm + step * base / warm
    last = total - 1
    p = (step - warm) / (last - warm) if last > warm else 0.0
    return floor + (base - floor) * math.cos(math.pi * p / 2) ** 2


@pytest.mark.parametrize(
    ("total", "warmup"), [(100, 10.0), (100, 0.0), (37, 4.6), (2, 0.0), (5, 9.0), (1, 3.0)]
)
def test_the_whole_learning_rate_trace_is_the_closed_form(total: int, warmup: float) -> None:
    trace = [cosine_lr(i, total, base=0.1, floor=1e-4, warmup=warmup) for i in range(total)]
    warm = min(round(warmup), total - 1)
    want = [closed_form(i, total, 0.1, 1e-4, warm) for i in range(total)]
    assert trace == pytest.approx(want, rel=1e-12)
    assert max(trace) == pytest.approx(0.1)
    if total - warm > 1:
        assert trace[-1] == pytest.approx(1e-4, rel=1e-9)


@quick
@given(st.integers(2, 300), st.floats(0, 40))
def test_the_learning_rate_rises_and_then_never_again(total: int, warmup: float) -> None:
    trace = [cosine_lr(i, total, base=1.0, floor=0.01, warmup=warmup) for i in range(total)]
    top = trace.index(max(trace))
    assert trace[: top + 1] == sorted(trace[: top + 1])
    assert trace[top:] == sorted(trace[top:], reverse=True)
    assert min(trace) >= min(0.01, 1 / max(1, round(warmup))) - 1e-12


def test_the_steps_of_the_public_tables_come_at_150_180_and_210() -> None:
    config = OptimConfig(name="sgd", schedule="step", lr=0.05)
    trace = [config.lr_at(i, 3, 240) for i in range(720)]
    for epoch, lr in ((0, 0.05), (149, 0.05), (150, 5e-3), (179, 5e-3), (180, 5e-4), (210, 5e-5)):
        assert trace[3 * epoch : 3 * epoch + 3] == pytest.approx([lr] * 3)
    at_epochs = OptimConfig(schedule="step", lr=1.0, milestones=[2.0, 3.0], step_factor=0.5)
    assert [at_epochs.lr_at(i, 1, 5) for i in range(5)] == pytest.approx([1, 1, 0.5, 0.25, 0.25])


@pytest.mark.parametrize(("warmup", "steps"), [(0.25, 10), (2.0, 10), (0.0, 0)])
def test_warm_up_is_given_in_epochs_or_as_a_fraction_of_them(warmup: float, steps: int) -> None:
    config = OptimConfig(lr=1.0, warmup_epochs=warmup, min_lr=0.0)
    trace = [config.lr_at(i, 5, 8) for i in range(40)]
    assert trace == pytest.approx([closed_form(i, 40, 1.0, 0.0, steps) for i in range(40)])


def test_the_learning_rate_of_a_run_spans_its_stages_without_a_restart(world: World) -> None:
    config = tiny.rung("L2", "budget.student_epochs=8", "optim.lr=2e-3", "optim.warmup_epochs=2")
    state, seen = tiny.new_state(config, world), []
    state.optimiser.register_step_pre_hook(
        lambda optimiser, *_: seen.append([group["lr"] for group in optimiser.param_groups])
    )
    epochs = list(tiny.epochs_of(config, world, state))
    steps = len(world.data.train.labels) // 50
    assert [e.stage for e in epochs if e.step == "B"] == [1, 1, 2, 2, 3, 3, 4, 4]
    want = [closed_form(i, 8 * steps, 2e-3, 1e-6, 2 * steps) for i in range(8 * steps)]
    assert seen == [[pytest.approx(lr, rel=1e-12)] for lr in want]
    logged = [e.metrics["train/lr"] for e in epochs if e.step == "B"]
    assert logged == pytest.approx(want[steps - 1 :: steps], rel=1e-12)


def test_the_teachers_learning_rate_is_the_closed_form(world: World) -> None:
    config = tiny.teacher_config(
        0, "teacher.0.recipe.epochs=3", "teacher.0.recipe.optim.warmup_epochs=1"
    )
    state, seen = FinetuneState.new(config), []
    state.optimiser.register_step_pre_hook(
        lambda optimiser, *_: seen.append(optimiser.param_groups[0]["lr"])
    )
    list(finetune(config, world.data, state))
    lr, floor = config.teacher.recipe.optim.lr, config.teacher.recipe.optim.min_lr
    assert seen == pytest.approx([closed_form(i, 12, lr, floor, 4) for i in range(12)], rel=1e-12)


# The weight of distillation -------------------------------------------------------------------


def test_kd_weight_rises_over_its_warm_up_and_reaches_zero_in_the_last_epoch() -> None:
    trace = [kd_weight(e, 80, alpha=0.3, warmup=10, cool=20) for e in range(80)]
    want = (
        [0.3 * (e + 1) / 10 for e in range(10)]
        + [0.3] * (60 - 10)
        + [0.3 * (79 - e) / 20 for e in range(60, 80)]
    )
    assert trace == pytest.approx(want, rel=1e-12)
    assert trace[-1] == 0.0
    assert trace[-2] == pytest.approx(0.3 / 20)


def test_kd_weight_without_warm_up_and_cooldown_is_constant() -> None:
    assert {kd_weight(e, 7, alpha=0.4, warmup=0, cool=0) for e in range(7)} == {0.4}


def method(**options: object) -> Asib:
    return Asib(AsibConfig(token_dim=8, **options), Dims(4, (4,), 3))


def test_the_methods_lengths_are_fractions_of_the_budget_or_epochs() -> None:
    by_fraction = method(kd_warmup_epochs=0.125, kd_cooldown_epochs=0.25)
    by_epochs = method(kd_warmup_epochs=5.0, kd_cooldown_epochs=10.0)
    for epoch in range(40):
        position = StepPosition(epoch, 40)
        want = kd_weight(epoch, 40, alpha=0.3, warmup=5, cool=10)
        assert by_fraction.kd_weight(position) == by_epochs.kd_weight(position) == want
        assert by_epochs.needs_teachers(position) == (want > 0)
    assert not by_epochs.needs_teachers(StepPosition(39, 40))


def test_the_kd_weight_counts_over_all_stages(two_stages: dict[str, Run]) -> None:
    weights = [e.metrics.get("kd/weight", 0.0) for e in two_stages["L2"].epochs if e.step == "B"]
    want = [kd_weight(e, 4, alpha=0.3, warmup=0.5, cool=1) for e in range(4)]
    assert weights == pytest.approx(want)
    assert want[-1] == 0.0


def test_beta_rises_over_its_warm_up_counted_over_all_stages() -> None:
    m = method(ib_beta=2.0, ib_beta_warmup_epochs=10.0, synergy_only_epochs=2.0)
    found = [
        m.beta(StepPosition(8 * stage + i, 32, stage, i, 8)) for stage in range(4) for i in range(8)
    ]
    want = [0.0 if e % 8 < 2 else 2.0 * min(1.0, e / 10) for e in range(32)]
    assert found == pytest.approx(want)
    assert max(found) == 2.0
    assert (
        method(ib_beta=2.0, ib_beta_warmup_epochs=0.0, synergy_only_epochs=0.0).beta(
            StepPosition(0, 8, 0, 0, 8)
        )
        == 2.0
    )
    assert method(bottleneck=False).beta(StepPosition(20, 32, 2, 4, 8)) == 0.0


def test_beta_is_a_fraction_of_the_a_step_budget() -> None:
    m = method(ib_beta=1.0, ib_beta_warmup_epochs=0.5, synergy_only_epochs=0.0)
    found = [m.beta(StepPosition(e, 8, 0, e, 8)) for e in range(8)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_the_surrogate_ramps_in_every_stage_but_the_first() -> None:
    m = method(w_kd=0.3, cccp_alpha=0.15, cccp_ramp_epochs=2.0, synergy_only_epochs=2.0)
    for i in range(8):
        assert m.surrogate_weights(StepPosition(i, 32, 0, i, 8)) == (0.0, 0.0)
    for stage in (1, 2, 3):
        found = [
            m.surrogate_weights(StepPosition(8 * stage + i, 32, stage, i, 8)) for i in range(2, 8)
        ]
        assert [w_kd for w_kd, _ in found] == [0.3] * 6
        assert [cccp for _, cccp in found] == pytest.approx([0.075] + [0.15] * 5)


def test_ramps() -> None:
    assert [ramp(e, 4) for e in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [rise_from_zero(e, 4) for e in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert [cooldown(e, 6, 4) for e in range(6)] == [1, 1, 0.75, 0.5, 0.25, 0]
    assert ramp(0, 0) == rise_from_zero(0, 0) == cooldown(5, 6, 0) == 1


@quick
@given(st.integers(0, 500), st.integers(1, 20))
def test_even_split_shares_everything_with_the_larger_parts_first(total: int, parts: int) -> None:
    split = even_split(total, parts)
    assert sum(split) == total
    assert len(split) == parts
    assert max(split) - min(split) <= 1
    assert split == sorted(split, reverse=True)


def test_a_step_learning_rates(world: World) -> None:
    """The A-Step's rate is constant; fusion module and head have a factor of their own."""
    config = tiny.rung("L1", "method.ib_mbm_lr_factor=3", "method.a_lr=1e-3")
    state = tiny.new_state(config, world)
    epochs = tiny.epochs_of(config, world, state)
    next(epochs)
    factor, plain = state.a_optimiser.param_groups
    assert (factor["lr"], plain["lr"]) == (pytest.approx(3e-3), 1e-3)
    named = {id(p): name for name, p in state.method.named_parameters()}
    assert {named[id(p)].split(".")[0] for p in factor["params"]} == {"fusion", "head"}
    assert {named[id(p)].split(".")[0] for p in plain["params"]} == {
        "query_adapter",
        "teacher_adapters",
    }
    learning = sum(len(group["params"]) for group in (factor, plain))
    assert learning == len(list(state.method.parameters()))
    assert isinstance(state.a_optimiser, torch.optim.AdamW)
