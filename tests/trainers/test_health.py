"""Each warning is given by a run in which that part is broken, and not by a healthy one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from tests.trainers.tiny import Run, World
from trainers import health, measures
from trainers.health import WARNINGS

A = {"stage/step": 0.0}
B = {"stage/step": 1.0}
SIGMA = {
    "bottleneck/sigma_mean": 0.7,
    "bottleneck/sigma_min": 0.2,
    "bottleneck/sigma_max": 1.6,
    "bottleneck/sigma_floor": 0.135,
}


def a_step(**more: float) -> dict[str, float]:
    grads = {"bottleneck/adapter_grad": 1e-3, "bottleneck/fusion_grad": 1e-3}
    shares = {"teacher0/trainable": 0.4, "teacher0/trainable_requested": 0.4}
    return A | SIGMA | grads | shares | {"train/loss/total": 1.0} | dotted(more)


def skipping(*shares: float) -> list[dict[str, float]]:
    return [B | {"train/skipped": share} for share in shares]


def b_step(ce: float = 1.0, kd: float = 0.3, weight: float = 0.3, **more: float) -> dict:
    terms = {"train/loss/ce": ce, "train/loss/kd": kd, "train/loss/total": ce + kd}
    shares = {"stage/student_trainable": 1.0, "stage/student_trainable_requested": 1.0}
    own = {"kd/weight": weight, "kd/weight_spread": 0.1, "kd/module_grad": 0.2}
    return B | terms | shares | own | dotted(more)


def dotted(more: dict[str, float]) -> dict[str, float]:
    return {key.replace("__", "/"): value for key, value in more.items()}


def last(synergy: float, gate: float) -> dict[str, float]:
    chance = {"synergy/chance": 0.14, "synergy/token_share": 0.5, "synergy/query_leak": 0.05}
    return a_step(synergy__restored=synergy, synergy__gate=gate) | chance


HEALTHY = [
    a_step(),
    last(0.5, 0.0),
    b_step(kd=0.05, weight=0.1),
    b_step(),
    a_step(),
    last(0.9, 1.0),
    b_step(),
    b_step(train__skipped=0.5),
    b_step(kd=1e-6, weight=0.0, val__best_top1=0.9, val__chance=0.14, train__skipped=0.005),
]
BROKEN = {
    "synergy_at_chance": [a_step(), last(0.14, 1.0)],
    "tokens_carry_little": [a_step(), last(0.5, 1.0) | {"synergy/token_share": 0.09}],
    "query_leaks": [a_step(), last(0.8, 1.0) | {"synergy/query_leak": 0.051}],
    "validation_at_chance": [B | {"val/best_top1": 0.14, "val/chance": 0.14}],
    "gate_never_open": [last(0.5, 0.0), b_step(), last(0.5, 0.0), b_step()],
    "gate_always_open": [last(0.5, 1.0), b_step(), last(0.5, 1.0), b_step()],
    "sigma_at_one": [
        a_step(bottleneck__sigma_mean=1.01, bottleneck__sigma_min=0.9, bottleneck__sigma_max=1.1)
    ],
    "sigma_at_floor": [a_step(bottleneck__sigma_mean=0.136)],
    "kd_negligible": [b_step(kd=0.0099)],
    "weight_constant": [b_step(kd__weight_spread=1e-6)],
    "adapter_without_gradient": [a_step(bottleneck__adapter_grad=0.0)],
    "module_without_gradient": [b_step(kd__module_grad=0.0)],
    "steps_skipped": skipping(0.0, 0.0, 0.021),
    "freezing_not_as_asked": [b_step(stage__student_trainable=0.9)],
    "non_finite": [b_step(val__loss=math.nan)],
}


def judged(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    """The epochs with their health, one after the other, as the shell does it."""
    found: list[dict[str, float]] = []
    for i, epoch in enumerate(epochs):
        found.append(dict(epoch))
        found[-1] |= health.check(found, final=i + 1 == len(epochs))
    return found


def of_run(run: Run) -> list[str]:
    return health.fired(judged([e.metrics for e in run.epochs]))


def test_every_rule_has_its_sentence_and_its_case() -> None:
    assert set(WARNINGS) == set(BROKEN)
    assert all(warning.advice for warning in WARNINGS.values())


def test_a_healthy_history_gives_no_warning() -> None:
    epochs = judged(HEALTHY)
    assert health.fired(epochs) == []
    applied = {key.removeprefix("health/") for e in epochs for key in e if key.startswith("health")}
    assert applied == set(BROKEN)  # every rule looked at it


@pytest.mark.parametrize("warning", BROKEN)
def test_a_broken_part_gives_its_warning_alone(warning: str) -> None:
    epochs = judged(BROKEN[warning])
    assert health.fired(epochs) == [warning]
    assert epochs[-1][f"health/{warning}"] == 1.0


def test_rules_apply_where_they_have_something_to_read() -> None:
    (epoch,) = judged([B | {"train/loss/total": 1.0, "train/loss/ce": 1.0}])
    assert {k for k in epoch if k.startswith("health/")} == {"health/non_finite"}
    first, second = judged([last(0.5, 1.0), b_step()])
    assert "health/gate_always_open" not in first  # the run is not over
    assert "health/gate_always_open" not in second  # one reading is not always
    assert second["health/gate_never_open"] == 0.0
    assert "health/kd_negligible" not in judged(HEALTHY)[-1]  # the cooldown's last epoch


def test_small_terms_of_a_warm_up_are_no_sign() -> None:
    rising = [b_step(kd=0.001 * w, weight=w / 10) for w in (1, 2, 3, 4)]
    assert "kd_negligible" in health.fired(judged(rising))  # at its largest weight so far
    falling = [b_step(kd=0.3, weight=0.3), b_step(kd=0.005, weight=0.1)]
    assert health.fired(judged(falling)) == []


def test_steps_that_find_the_scale_are_no_sign() -> None:
    assert health.fired(judged(skipping(0.4, 0.0, 0.02))) == []
    assert health.fired(judged(skipping(0.4))) == []
    early = judged([*skipping(0.0, 1.0), B])
    assert "health/steps_skipped" not in early[1]  # the run is not over
    assert health.fired(early) == ["steps_skipped"]


def test_judging_from_the_middle_is_judging_from_the_start() -> None:
    epochs = judged(BROKEN["gate_never_open"])
    again = epochs[:2] + [dict(m) for m in BROKEN["gate_never_open"][2:]]
    for i in (2, 3):
        again[i] |= health.check(again[: i + 1], final=i == 3)
    assert again == epochs


def test_what_guessing_reaches() -> None:
    labels = torch.tensor([0] * 50 + [1] * 25 + [2] * 25)
    assert measures.chance(labels) == pytest.approx(0.5 + 2 * 0.05)
    assert measures.chance(torch.zeros(9, dtype=torch.long)) == 1.0


def test_the_weakest_gradient_is_of_the_module_that_has_least() -> None:
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in "abc"})
    for name, size in (("a", 3.0), ("b", 1.0)):
        net[name].weight.grad = torch.full((2, 2), size)
        net[name].bias.grad = torch.zeros(2)
    named = list(net.named_parameters())
    assert measures.weakest_gradient(named[:4]) == 2.0  # sqrt(4 · 1²)
    assert measures.weakest_gradient(named) == 0.0  # c got none
    assert measures.gradient_metric("norm", named[:4]) == {"norm": 2.0}
    for name in "ab":
        net[name].bias.grad = torch.tensor([torch.inf, 0.0])
    assert measures.gradient_metric("norm", named[:4]) == {}


# Real runs ----------------------------------------------------------------------------------

# More of the A-Step than elsewhere in these tests, so that the fusion learns something.
LEARNS = [*tiny.TWO_STAGES, "budget.adapt_epochs=12", "method.kd_alpha=3"]


def test_parts_that_work_are_not_warned_of(two_stages: dict[str, Run]) -> None:
    parts = {
        "adapter_without_gradient",
        "module_without_gradient",
        "freezing_not_as_asked",
        "non_finite",
        "sigma_at_one",
        "sigma_at_floor",
        "weight_constant",
    }
    for cfg in ("CE", "L2", "L3"):
        epochs = judged([e.metrics for e in two_stages[cfg].epochs])
        assert not parts & set(health.fired(epochs)), cfg
        applied = {key.removeprefix("health/") for e in epochs for key in e}
        assert applied >= (parts if cfg != "CE" else {"freezing_not_as_asked", "non_finite"})


@pytest.mark.parametrize(
    ("warning", "overrides"),
    [
        ("adapter_without_gradient", ["method.adapt=none"]),
        ("module_without_gradient", ["method.a_step_sample=false"]),
        ("sigma_at_one", ["method.a_step_sample=false", "method.ib_beta=10"]),
        ("sigma_at_floor", ["method.min_std=1", "method.logvar_clip=1e-9"]),
        ("kd_negligible", ["method.kd_alpha=1e-4"]),
        (
            "weight_constant",
            ["method.kd_uncertainty_weight=1e-9", "method.max_cw=1", "method.min_cw=1"],
        ),
        ("gate_never_open", ["method.enable_kd_after_syn_acc=1"]),
    ],
)
def test_a_run_with_a_broken_part_is_warned_of(
    warning: str, overrides: list[str], world: World
) -> None:
    assert warning in of_run(tiny.run(tiny.rung("L2", *LEARNS, *overrides), world))


def test_a_latent_whose_mean_still_tells_something_is_not_empty() -> None:
    flat = {
        "bottleneck__sigma_mean": 0.97,
        "bottleneck__sigma_min": 0.8,
        "bottleneck__sigma_max": 1.2,
    }
    for rate, warned in ((7.9, False), (0.4, True)):
        epochs = [a_step(**flat, bottleneck__rate=rate)]
        assert ("sigma_at_one" in health.fired(judged(epochs))) is warned


def test_a_weight_that_is_never_above_0_teaches_nothing() -> None:
    alone = B | {"train/loss/ce": 1.0, "train/loss/total": 1.0}
    assert "kd_negligible" in health.fired(judged([alone | {"kd/weight": 0.0}] * 2))
    assert "kd_negligible" not in health.fired(judged([alone] * 2))  # no teacher was requested


def test_a_run_whose_teachers_weigh_nothing_is_warned_of(world: World) -> None:
    assert "kd_negligible" in of_run(tiny.run(tiny.rung("L2", *LEARNS, "method.kd_alpha=0"), world))
