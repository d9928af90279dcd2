"""Targets that are made for many steps at once are those of each step by itself, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import metrics
from trainers.distillation import ready_outputs
from trainers.distillation.config import DistillConfig
from trainers.distillation.ready_outputs import ReadyOutputs
from trainers.distillation.state import StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.base import StepPosition, TeacherOutputs

POSITION = StepPosition(1, 4, 0, 1, 2)
BATCH = ["optim.batch=16"]
RUNGS = {
    "KD": [],
    "KD_null": [],
    "stack": [],
    "L2": [],
    "L2 of two labels": ["method.kd_label_guard=true", "method.disagree_lambda_high=0.5"],
    "L2_null": [],
    "L2_null_by_label": [],
}
METHODS = ("kd", "kd_ls", "dkd", "dist", "crd")
CASES = [*RUNGS, *METHODS]


def configured(name: str, *overrides: str) -> DistillConfig:
    if name in METHODS:
        return tiny.baseline(name, *BATCH, *overrides)
    return tiny.rung(name.partition(" ")[0], *RUNGS[name], *BATCH, *overrides)


def both_ways(
    config: DistillConfig, world: World
) -> list[tuple[TeacherOutputs, dict[str, Tensor], TeacherOutputs]]:
    """Of every step: ready outputs, targets of its own outputs, these outputs."""
    state = tiny.new_state(config, world)
    state.stage_student, state.gate_open = tiny.clone(state.student), True
    inputs = StepInputs.prepare(config, world.data, tiny.teachers_of(config, world), state)
    mix = config.mix if config.mix.active(POSITION.epoch, POSITION.total) else None
    plan = inputs.plan("student", POSITION, mix, unlabelled=True)
    source, method = Source(inputs, state, POSITION), state.method
    assert not source.live
    labels_SL = inputs.views.labels(plan.rows[:, : plan.labelled])
    ready = ReadyOutputs(inputs, source, method, plan, labels_SL, POSITION)
    found = []
    for i, rows in enumerate(plan.rows):
        own = source.teacher_outputs(rows)
        made = method.student_targets(own, labels_SL[i], plan.mixes[i], POSITION)
        ready.make(i)
        found.append((ready.of_step(i), made, own))
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one is other


@pytest.mark.parametrize("mixed", ["mix.start=0", "mix.start=4"])
@pytest.mark.parametrize("name", CASES)
def test_they_are_those_of_each_step_by_itself(
    name: str, mixed: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(name, mixed)
    steps_at_once = 5  # the last time fewer are left
    widest = max(config.data.classes, *(t.bank.width for t in world.teachers))
    numbers = steps_at_once * config.optim.batch * widest
    monkeypatch.setattr(ready_outputs, "NUMBERS", numbers)
    found = both_ways(config, world)
    assert len(found) % steps_at_once
    for ready, made, own in found:
        assert ready.targets is not None
        assert same(ready._replace(targets=None), own)
        assert ready.targets.keys() == made.keys()
        for key, value in made.items():
            if key == metrics.KD_WEIGHT_SPREAD:  # only seen: its variance is added up otherwise
                assert math.isclose(ready.targets[key], value, rel_tol=1e-4, abs_tol=1e-6)
            else:
                assert torch.equal(ready.targets[key], value), key
