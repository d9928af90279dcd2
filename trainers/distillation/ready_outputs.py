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
from trainers.step_index import Index, select

NUMBERS = 2**20  # images × widest output of all steps that are made at once: some MiB


class ReadyOutputs:
    """The outputs and targets of an epoch's steps, from a source that runs no network. `fixed`:
    they stay where they are in memory, for a CUDA graph that reads them."""

    def __init__(
        self,
        inputs: StepInputs,
        source: Source,
        method: Method,
        plan: EpochPlan,
        labels_SL: Tensor,
        position: StepPosition,
        *,
        fixed: bool = False,
    ) -> None:
        self._inputs, self._source, self._method = inputs, source, method
        self._plan, self._labels, self._position = plan, labels_SL, position
        widest = max(inputs.config.data.classes, *method.dims.teachers)
        self._many = max(1, NUMBERS // (plan.rows.shape[1] * widest))
        self._fixed, self._first = fixed, -1
        self._ready: TeacherOutputs | None = None

    def reads(self) -> list[Reads]:
        """What is read of tables in the epoch: rows of many steps at once."""
        return self._source.reads([rows.flatten() for rows in self._plan.rows.split(self._many)])

    def make(self, step: int) -> None:
        """Make those of a step and of the following ones, unless they were made with others."""
        first = step - step % self._many
        if first == self._first:
            return
        self._first, made = first, self._of_steps(slice(first, first + self._many))
        if self._fixed and self._ready is not None:
            _copy(made, self._ready)
        else:
            self._ready = made

    def of_step(self, step: Index) -> TeacherOutputs:
        """The outputs on one step's batch, with its targets; they were made."""
        assert self._ready is not None
        assert self._ready.targets is not None
        at = step % self._many
        one = self._ready.changed(lambda value, axis: select(value, at, axis))
        targets = {name: select(value, at) for name, value in self._ready.targets.items()}
        return one._replace(targets=targets)

    @torch.no_grad()
    def _of_steps(self, steps: slice) -> TeacherOutputs:
        """Of several steps; every axis of images is preceded by one of steps."""
        rows_SB = self._plan.rows[steps]
        flat = self._source.teacher_outputs(rows_SB.flatten())
        found = flat.changed(lambda value, axis: value.unflatten(axis, rows_SB.shape))
        with self._inputs.numerics.autocast(self._inputs.device):
            return found._replace(targets=self._targets(found, steps))

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


def _copy(new: TeacherOutputs, into: TeacherOutputs) -> None:
    """Write outputs of as many steps, or of fewer, in the place of others."""
    parts = list[Tensor]()
    new.changed(lambda value, axis: parts.append(value.movedim(axis, 0)))
    given = iter(parts)

    def copied(value: Tensor, axis: int) -> None:
        part = next(given)
        value.movedim(axis, 0)[: len(part)] = part

    into.changed(copied)
    assert new.targets is not None
    assert into.targets is not None
    for name, value in new.targets.items():
        into.targets[name][: len(value)] = value
