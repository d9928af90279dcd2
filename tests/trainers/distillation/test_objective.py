"""J, the logged objective of the alternation, against a formula that starts from the weights."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import models
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, StepInputs
from trainers.loop import Epoch


def kl(p: Tensor, q: Tensor, tau: float) -> float:
    """mean of τ²·KL(SM(p/τ) ‖ SM(q/τ)), term by term."""
    total = 0.0
    for a, b in zip(torch.softmax(p / tau, 1), torch.softmax(q / tau, 1), strict=True):
        total += sum(x * math.log(x / y) for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return tau**2 * total / len(p)


def ce(logits: Tensor, labels: Tensor) -> float:
    rows = zip(torch.softmax(logits, 1).tolist(), labels.tolist(), strict=True)
    return sum(-math.log(row[label]) for row, label in rows) / len(labels)


@torch.no_grad()
def slow_parts(config: DistillConfig, world: World, state: DistillState) -> dict[str, float]:
    """All parts of J for the state as it stands, from live forward passes in float64."""
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    images, labels = inputs.normalise(world.data.val.pixels), world.data.val.labels
    c, method = config.method, copy.deepcopy(state.method).eval()

    def say(net: torch.nn.Module) -> models.Outputs:
        return models.outputs(copy.deepcopy(net).eval(), images)

    student = say(state.student)
    start = [say(t.model) for t in world.teachers]
    now = [say(t) for t in state.teachers] or start
    latent = method.fuse(student.pooled, [t.pooled for t in now])
    v, s = method.head(latent.mu).double(), student.logits.double()
    parts = {
        "ce_student": ce(s, labels),
        "ce_synergy": ce(v, labels),
        "kl_student_synergy": kl(s, v, c.tau),
        "kl_synergy_student": kl(v, s, c.tau),
        "preserve": sum(
            kl(a.logits.double(), b.logits.double(), c.tau) for a, b in zip(start, now, strict=True)
        )
        / 2,
    }
    if latent.logvar is not None:
        pairs = zip(latent.mu.flatten().tolist(), latent.logvar.flatten().tolist(), strict=True)
        rate = sum(-0.5 * (1 + w - m**2 - math.exp(w)) for m, w in pairs)
        parts["rate"] = rate / len(labels)
    return parts


def weighted(c: Any, parts: dict[str, float]) -> float:
    gamma = c.w_kd + c.cccp_alpha if c.num_stages > 1 else 0.0
    both = (parts["kl_student_synergy"] + parts["kl_synergy_student"]) / 2
    return (
        c.ce_alpha * parts["ce_student"]
        + c.w_ce * parts["ce_synergy"]
        + gamma * both
        + c.ib_beta * parts.get("rate", 0.0)
        + c.lambda_pres * parts["preserve"]
    )


@pytest.mark.parametrize(
    ("cfg", "options"),
    [
        ("L0", {}),
        ("L1", {"ib_beta": 0.1}),
        ("L3", {"num_stages": 2, "a_lr": 1e-2, "lambda_pres": 0.7, "ib_beta": 0.1, "w_ce": 0.5}),
    ],
)
def test_j_is_the_formula_at_every_step_boundary(
    cfg: str, options: dict[str, Any], world: World
) -> None:
    config = tiny.rung(cfg, **options)
    state, found = tiny.new_state(config, world), []
    for epoch in tiny.epochs_of(config, world, state):
        if "stage/J" in epoch.metrics:
            found.append(epoch)
            check(config, world, state, epoch)
    stages = options.get("num_stages", 1)
    assert [(e.stage, e.step) for e in found] == [
        (stage, step) for stage in range(1, stages + 1) for step in ("A", "B")
    ]


def check(config: DistillConfig, world: World, state: DistillState, epoch: Epoch) -> None:
    want = slow_parts(config, world, state)
    found = {
        name.removeprefix("stage/J_"): value
        for name, value in epoch.metrics.items()
        if name.startswith("stage/J_")
    }
    assert found == pytest.approx(want, rel=5e-3, abs=2e-5)  # banks are fp16
    assert epoch.metrics["stage/J"] == pytest.approx(weighted(config.method, found), rel=1e-6)
    adapted = config.method.adapt == "backbone"
    assert (found["preserve"] > 1e-4) == adapted
    assert ("rate" in found) == config.method.bottleneck
    assert found["kl_student_synergy"] != found["kl_synergy_student"]


def test_controls_have_no_objective(world: World) -> None:
    for cfg in ("CE", "KD"):
        epochs = tiny.run(tiny.rung(cfg), world).epochs
        assert not any("stage/J" in e.metrics for e in epochs)
