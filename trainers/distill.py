"""Distil teachers into a student: stages of an A-Step (the fusion learns) and a B-Step (the
student learns).

A generator of epochs: it changes the state it was given and knows nothing of files or trackers.
The plan of epochs is a flat list that follows from the configuration; a state's position is an
index into it, so that a resumed run starts the loop at another index.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from trainers import metrics
from trainers.data import TrainingData
from trainers.distillation.a_step import AStep
from trainers.distillation.b_step import BStep
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, PlannedEpoch, StepInputs, Teacher
from trainers.loop import Epoch, check_finite, peak_memory_mb, reset_peak_memory
from trainers.methods.base import StepPosition
from trainers.weight_digest import state_digests

DISTILL_VERSION = 2  # raise it when the numbers of this stage change

STEPS: dict[str, type[AStep] | type[BStep]] = {"A": AStep, "B": BStep}


def plan(config: DistillConfig) -> list[PlannedEpoch]:
    """All epochs of a run in order: for each stage its A-Step (if any), then its B-Step."""
    stages = config.method.stage_count()
    a_lengths = config.method.a_step_epochs(config.budget.adapt_epochs) or [0] * stages
    b_lengths = config.budget.stage_epochs(stages)
    planned_epochs = []
    for stage in range(stages):
        for step, lengths in (("A", a_lengths), ("B", b_lengths)):
            done, total = sum(lengths[:stage]), sum(lengths)
            planned_epochs += [
                PlannedEpoch(step, StepPosition(done + i, total, stage, i, lengths[stage]))
                for i in range(lengths[stage])
            ]
    return planned_epochs


def distill(
    config: DistillConfig, data: TrainingData, teachers: list[Teacher], state: DistillState
) -> Iterator[Epoch]:
    """Run the plan from the state's position to its end, yielding each epoch.

    Raises:
        NonFinite: a loss or a weight is not finite.
        Interrupted: `state.stop()` turned true; the state is at a step boundary.
    """
    inputs = StepInputs.prepare(config, data, teachers, state)
    planned_epochs, current = plan(config), None
    while state.progress.slot < len(planned_epochs):
        began, index = time.perf_counter(), state.progress.slot
        planned = planned_epochs[index]
        if current is None or planned.first:
            fresh = planned.first and state.progress.step == 0
            reset_peak_memory(inputs.device)  # each step's own peak: freezing is to save memory
            current = STEPS[planned.step](inputs, state, planned.position, fresh=fresh)
        values = current.epoch(planned)
        check_finite(state.student, state.method, *state.teachers)
        values |= state_digests(
            student=[state.student], method=[state.method], teachers=state.teachers
        )
        values |= {
            metrics.STAGE_INDEX: planned.position.stage + 1.0,
            metrics.STAGE_STEP: float(planned.step == "B"),
            metrics.EPOCH_SECONDS: time.perf_counter() - began,
            metrics.PEAK_MEMORY: peak_memory_mb(inputs.device),
        }
        state.progress.slot += 1
        state.progress.done = state.progress.slot == len(planned_epochs)
        yield Epoch(index, planned.position.stage + 1, planned.step, values)
