"""The fusion's query and what its logits start from: without a student, dropped, of its moving
average, as a residual of the teachers' average.

Shapes: B examples, C classes, D pooled width, K teachers.
"""

from typing import Any

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.methods.asib.test_method import (
    AVERAGE,
    LABELS,
    STUDENT,
    TEACHERS,
    B,
    asib,
)
from tests.trainers.tiny import World
from trainers import models
from trainers.distillation.a_step import AStep
from trainers.distillation.state import StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.asib.config import AsibConfig
from trainers.methods.asib.guidance import guidance
from trainers.methods.base import StepPosition
from trainers.mixing import UNMIXED

LOGITS, POOLED = [t.logits for t in TEACHERS], [t.pooled for t in TEACHERS]
MIDDLE = StepPosition(40, 80)


def test_without_a_query_no_student_is_read_and_no_adapter_is_built() -> None:
    m = asib(query="none").eval()
    names = {name.split(".")[0] for name, _ in m.named_parameters()}
    assert names == {"query_token", "teacher_adapters", "fusion", "head"}
    mu = m.fuse(STUDENT.pooled, POOLED).mu
    assert torch.equal(mu, m.fuse(-3 * STUDENT.pooled, POOLED).mu)
    assert torch.equal(mu, m.fuse(None, POOLED).mu)
    assert (mu - m.fuse(None, POOLED[::-1]).mu).abs().max() > 1e-3
    terms = m.train().teacher_terms(STUDENT, TEACHERS, None, LABELS, StepPosition(4, 8, 0, 4, 8))
    sum(terms.losses.values()).backward()
    assert m.query_token.grad.norm() > 0


def test_the_parts_that_stay_start_alike_with_and_without_a_query() -> None:
    plain, without = asib().state_dict(), asib(query="none").state_dict()
    assert without.pop("query_token").norm() == 0
    assert {name for name in plain if name not in without} == {
        name for name in plain if name.startswith("query_adapter.")
    }
    assert all(torch.equal(plain[name], without[name]) for name in without)


def test_a_dropped_query_is_the_constant_of_some_images_while_it_learns() -> None:
    m = asib(query_dropout=0.4)
    with torch.no_grad():
        m.query_token.normal_()
    asked, constant = m.eval().fuse(STUDENT.pooled, POOLED).mu, m.fuse(None, POOLED).mu
    torch.manual_seed(0)
    many = m.train().fuse(STUDENT.pooled.repeat(500, 1), [p.repeat(500, 1) for p in POOLED]).mu
    dropped = (many - constant.repeat(500, 1)).abs().amax(1) < 1e-12
    torch.testing.assert_close(many[~dropped], asked.repeat(500, 1)[~dropped])
    assert float(dropped.double().mean()) == pytest.approx(0.4, abs=0.04)  # of 500 · B draws
    assert torch.equal(asked, m.eval().fuse(STUDENT.pooled, POOLED).mu)


@pytest.mark.parametrize("weights", [None, [0.7, 0.3]])
def test_a_residual_fusion_starts_as_the_average(weights: list[float] | None) -> None:
    m = asib(residual=True, kd_target="synergy", teacher_weights=weights, tau_syn=4.0).eval()
    latent = m.fuse(STUDENT.pooled, POOLED).mu
    synergy = m.synergy_logits(latent, LOGITS)
    shares = weights or [0.5, 0.5]
    average = sum(w * t for w, t in zip(shares, LOGITS, strict=True))
    torch.testing.assert_close(synergy, average, rtol=0, atol=1e-6)
    taught = guidance(m.config, AVERAGE._replace(synergy=synergy), LABELS, UNMIXED, MIDDLE).target
    unfused = guidance(m.config, AVERAGE, LABELS, UNMIXED, MIDDLE).target
    torch.testing.assert_close(taught, unfused, rtol=0, atol=1e-6)
    torch.testing.assert_close(m.synergy_logits(latent, LOGITS, which=[1]), LOGITS[1])


def test_a_residual_fusion_learns_its_last_layer_first() -> None:
    m = asib(residual=True)
    terms = m.teacher_terms(STUDENT, TEACHERS, None, LABELS, StepPosition(4, 8, 0, 4, 8))
    sum(terms.losses.values()).backward()
    assert m.head.layers[-1].weight.grad.norm() > 0
    with torch.no_grad():
        m.head.layers[-1].weight.normal_()
    latent = m.eval().fuse(STUDENT.pooled, POOLED).mu
    difference = m.synergy_logits(latent, LOGITS) - sum(LOGITS) / 2
    torch.testing.assert_close(difference, m.head(latent))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"query": "none", "w_feat": 1.0}, "method.w_feat=1 compares the student's query"),
        ({"query": "none", "feat_kd_alpha": 1.0}, "method.query=none has none; give stage"),
        (
            {"folds": 3, "query": "live", "adapt": "backbone", "target_view": "same"},
            "method.folds=3 does not go with method.query=live and method.adapt=backbone and "
            "method.target_view=same: ",
        ),
        ({"folds": 2, "feat_kd_alpha": 0.5}, "does not go with method.feat_kd_alpha=0.5"),
        ({"residual": True, "placebo": "tokens"}, "method.residual reads the logits too"),
        (
            {
                "residual": True,
                "synergy_eval_teacher_indices": [1],
                "teacher_weights": [1.0, 0.0],
            },
            "gives them no weight",
        ),
    ],
)
def test_contradictions_are_reported(options: dict[str, Any], part: str) -> None:
    (found,) = AsibConfig(**options).errors(32, 64, 2)
    assert part in found
    assert AsibConfig(**(options | {"kd_target": "avg", "placebo": "none"})).errors(32, 64, 2) == []


# In a run -----------------------------------------------------------------------------------

SHORT = ["method.num_stages=2", "budget.student_epochs=2", "budget.adapt_epochs=4"]


def test_no_share_of_a_query_is_measured_where_there_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.rung("L2", "method.query=none", "data.views=0", *SHORT)
    state, run = tiny.new_state(config, world), models.outputs
    queried: list[int] = []

    def count(model, *arguments, **options):
        if model is not state.student and type(model) is type(state.student):
            queried.append(len(arguments[0]))
        return run(model, *arguments, **options)

    for module in ("models.compiled", "distillation.teacher_outputs"):
        monkeypatch.setattr(f"trainers.{module}.outputs", count)
    epochs = list(tiny.epochs_of(config, world, state))
    last = [e.metrics for e in epochs if "synergy/restored" in e.metrics][-1]
    assert "synergy/token_share" in last
    assert "synergy/query_share" not in last
    assert "synergy/top1_other_query" not in last
    taught = [e for e in epochs if e.step == "B" and e.metrics["kd/weight"] > 0]
    assert len(queried) == len(taught) * 4 * len(world.teachers)  # the teachers, no student


def test_the_query_of_the_moving_average_is_that_of_the_stages_start(world: World) -> None:
    config = tiny.rung("L2", "method.query=ema", "method.ema_decay=0.9", *SHORT)
    state = tiny.new_state(config, world)
    with torch.no_grad():
        for parameter in state.ema.parameters():
            parameter.mul_(1.2)
    averaged = tiny.clone(state.ema)
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    AStep(inputs, state, StepPosition(0, 4, 0, 0, 2), fresh=True)
    assert tiny.differences(state.stage_student, averaged) == []
    state.gate_open, rows = True, torch.arange(B)
    source = Source(inputs, state, StepPosition(0, 2))
    assert not source.live  # the average asks; it does not teach
    images = inputs.views.batch(rows)
    found = source.teacher_outputs(rows, images, images)
    assert found.ema is None
    with torch.no_grad():
        query = models.outputs(state.ema.eval(), images).pooled
        pooled = [t.bank.train.pooled[rows].float() for t in world.teachers]
        logits = state.method.eval().head(state.method.fuse(query, pooled).mu)
    torch.testing.assert_close(found.synergy, logits, rtol=2e-3, atol=2e-3)
