"""Teacher outputs of a B-Step's batches from tables, and the targets that the method makes of them,
for many steps at once.

On a GPU the time of a step is the number of its calls, and none of these depends on the student.
Shapes: S steps, B a batch, L of it, the first, with a label, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.distillation.state import StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.base import Method, StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, EpochPlan, Mix
from trainers.read_ahead import Reads

NUMBERS = 2**20  # images × widest output of all steps that are made at once: some MiB


class ReadyOutputs:
    """The outputs and targets of an epoch's steps, from a source that runs no network."""

    def __init__(
        self,
        inputs: StepInputs,
        source: Source,
        method: Method,
        plan: EpochPlan,
        labels_SL: Tensor,
        position: StepPosition,
    ) -> None:
        self._inputs, self._source, self._method = inputs, source, method
        self._plan, self._labels, self._position = plan, labels_SL, position
        widest = max(inputs.config.data.classes, *method.dims.teachers)
        self._many = max(1, NUMBERS // (plan.rows.shape[1] * widest))
        self._first, self._ready = -1, list[TeacherOutputs]()

    def reads(self) -> list[Reads]:
        """What is read of tables in the epoch: rows of many steps at once."""
        return self._source.reads([rows.flatten() for rows in self._plan.rows.split(self._many)])

    def of_step(self, step: int) -> TeacherOutputs:
        """The outputs on one step's batch, with its targets."""
        first = step - step % self._many
        if first != self._first:
            self._first, self._ready = first, self._of_steps(slice(first, first + self._many))
        return self._ready[step - first]

    @torch.no_grad()
    def _of_steps(self, steps: slice) -> list[TeacherOutputs]:
        rows_SB = self._plan.rows[steps]
        flat = self._source.teacher_outputs(rows_SB.flatten())
        found = flat.changed(lambda value, axis: value.unflatten(axis, rows_SB.shape))
        with self._inputs.numerics.autocast(self._inputs.device):
            targets = self._targets(found, steps)

        def of_step(i: int) -> TeacherOutputs:
            one = found.changed(lambda value, axis: value.select(axis, i))
            return one._replace(targets={name: value[i] for name, value in targets.items()})

        return [of_step(i) for i in range(len(rows_SB))]

    def _targets(self, found: TeacherOutputs, steps: slice) -> dict[str, Tensor]:
        """What the method makes of each step's outputs, [S, …] each."""
        plan, position, labels_SL = self._plan, self._position, self._labels[steps]
        axes = found.changed(lambda _, axis: axis)

        def of_plain(one: TeacherOutputs, labels_L: Tensor) -> dict[str, Tensor]:
            return self._method.student_targets(one, labels_L, UNMIXED, position)

        def of_mixed(
            one: TeacherOutputs, labels_L: Tensor, partner_B: Tensor, lam: Tensor
        ) -> dict[str, Tensor]:
            return self._method.student_targets(one, labels_L, Mix(lam, partner_B), position)

        if plan.partners is None or plan.shares is None:
            return torch.vmap(of_plain, (axes, 0))(found, labels_SL)
        mixes = plan.partners[steps], plan.shares[steps, 0]
        return torch.vmap(of_mixed, (axes, 0, 0, 0))(found, labels_SL, *mixes)
