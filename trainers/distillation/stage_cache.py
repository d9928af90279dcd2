"""Tables that are valid for a stage: outputs of a network, or of the fusion module, on every row.

They are made at a step's start (and again where a run resumes inside it), so that nothing in the
loop runs a frozen network. Shapes: R rows (images × views), M validation images, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import models, stacking
from trainers.distillation.frozen_trunk import Trunk, trunks
from trainers.distillation.state import DistillState, StepInputs
from trainers.loop import evaluating
from trainers.methods.alternating import AlternatingMethod, Synergy, alternating
from trainers.models import Outputs
from trainers.rng import seeded
from trainers.stacking import Stack
from trainers.tables import Filling, Table
from trainers.view_bank import (
    BANK_CHUNK,
    Bank,
    Rows,
    TableOutputs,
    ViewOutputs,
    assemble,
    image_outputs,
    rows_of,
    view_outputs_of_ranks,
)

CHUNK = 4096  # rows of one pass of the fusion module


def network_bank(inputs: StepInputs, model: nn.Module, trunk: Trunk | None = None) -> Bank:
    """Outputs of a network, as it is now, on all rows and on the validation images. Fresh views
    are not the same twice: no row is kept of them."""
    val = val_rows(inputs, model, trunk)
    if inputs.views.fresh:
        return Bank(ViewOutputs(val.logits[:0], val.pooled[:0]), val)
    if trunk is None:
        parts = view_outputs_of_ranks(model, inputs.views, inputs.numerics)
    else:
        parts = trunk.view_outputs(model, inputs.numerics)
    return Bank(assemble(parts, inputs.views.rows, inputs.device, inputs.table_folder), val)


def val_rows(inputs: StepInputs, model: nn.Module, trunk: Trunk | None = None) -> ViewOutputs:
    """Outputs of a network, as it is now, on the validation images."""
    if trunk is not None:
        return trunk.val_rows(model, inputs.numerics)
    out = image_outputs(model, inputs.data.val, inputs.normalise, inputs.numerics, of_ranks=True)
    return ViewOutputs(out.logits.half(), out.pooled.half())


def teacher_banks(inputs: StepInputs, state: DistillState, stage: int) -> list[Bank]:
    """The teachers as they are now: their own banks, or, where their blocks were tuned, new ones
    that are kept until they are tuned again."""
    if not state.teachers:
        return [teacher.bank for teacher in inputs.teachers]
    if state.adapted is None:
        pairs = zip(state.teachers, teacher_trunks(inputs, state), strict=True)
        state.adapted = [network_bank(inputs, teacher, trunk) for teacher, trunk in pairs]
        if heads_only(inputs, state, stage):
            state.adapted = reclassified(state.teachers, state.adapted)
    return state.adapted


def heads_only(inputs: StepInputs, state: DistillState, stage: int) -> bool:
    """Whether nothing but the classifiers of the teachers learns in a stage's A-Step: their pooled
    features are constant then, and are read from tables."""
    method = alternating(state.method)
    if method is None or inputs.views.fresh or method.teacher_level(stage) != 0:
        return False
    return all(map(models.head_is_classifier, state.teachers))


@torch.no_grad()
def reclassified(teachers: list[nn.Module], banks: list[Bank]) -> list[Bank]:
    """Banks with the logits that the teachers' classifiers give their pooled features now."""

    def logits(teacher: nn.Module, old: Rows) -> Iterator[Tensor]:
        for at in range(0, len(old.pooled), CHUNK):
            yield models.classify(teacher, old.pooled[at : at + CHUNK].float()).half()

    def train(teacher: nn.Module, old: Rows) -> Rows:
        folder = old.folder if isinstance(old, TableOutputs) else None
        table = Filling(len(old.pooled), old.pooled.device, folder)
        return rows_of(table.filled(logits(teacher, old)), old.pooled, folder)

    def val(teacher: nn.Module, old: ViewOutputs) -> ViewOutputs:
        return ViewOutputs(torch.cat([*logits(teacher, old)]), old.pooled)

    pairs = zip(teachers, banks, strict=True)
    return [Bank(train(teacher, bank.train), val(teacher, bank.val)) for teacher, bank in pairs]


def teacher_val(inputs: StepInputs, state: DistillState) -> list[ViewOutputs]:
    """Outputs of the teachers, as they are now, on the validation images."""
    if not state.teachers:
        return [teacher.bank.val for teacher in inputs.teachers]
    pairs = zip(state.teachers, teacher_trunks(inputs, state), strict=True)
    return [val_rows(inputs, teacher, trunk) for teacher, trunk in pairs]


def tuned_outputs(inputs: StepInputs, state: DistillState, row_B: Tensor) -> list[Outputs]:
    """Outputs of the teachers under adaptation on these rows, with a graph where their blocks
    learn."""
    images, found = None, []
    compiled = inputs.numerics.compile and torch.is_grad_enabled()  # in steps, not in measurements
    for teacher, trunk in zip(state.teachers, teacher_trunks(inputs, state), strict=True):
        if trunk is not None:
            found.append(trunk.outputs(teacher, row_B))
            continue
        images = inputs.views.batch(row_B) if images is None else images
        found.append(models.step_outputs(teacher, images, compiled=compiled))
    return found


def teacher_trunks(inputs: StepInputs, state: DistillState) -> list[Trunk | None]:
    """The frozen lower blocks of the teachers under adaptation, made once a run."""
    if state.trunks is None:
        state.trunks = trunks(
            state.teachers,
            inputs.config.method.levels("teacher"),
            inputs.views,
            inputs.data.val,
            inputs.normalise,
            inputs.numerics,
        )
    return state.trunks


def stack(inputs: StepInputs, state: DistillState) -> Stack:
    """The regression on all teachers' features, fitted to the labelled views once a run."""
    if state.stack is None:
        what, labels = state.method.stack_features, inputs.data.train.labels
        assert what is not None
        count = len(labels) * inputs.views.count
        banks = [teacher.bank for teacher in inputs.teachers]
        state.stack = stacking.fit(
            stacking.stacked([getattr(bank.train, what)[:count] for bank in banks]),
            labels.repeat_interleave(inputs.views.count),
            stacking.stacked([getattr(bank.val, what) for bank in banks]),
            inputs.data.val.labels,
            inputs.config.data.classes,
        )
    return state.stack


def student_bank(inputs: StepInputs, state: DistillState) -> Bank:
    """The student as it was at the start of the stage: the fusion module's queries.

    Both steps of a stage read it; the A-Step's start throws the last stage's away. Without a query
    only the A-Step does, whose images are labelled: the student is not run on the others.
    """
    if state.queries is None:
        student, method = stage_student(state), alternating(state.method)
        if method is None or method.reads_query or inputs.views.fresh:
            state.queries = network_bank(inputs, student)
        else:
            state.queries = Bank(_labelled_rows(inputs, student), val_rows(inputs, student))
    return state.queries


def _labelled_rows(inputs: StepInputs, model: nn.Module) -> Rows:
    """Outputs of a network on the rows of labelled images (the first ones), and 0 on the others."""
    views = inputs.views
    chunks = -(-views.labelled * views.count // BANK_CHUNK)

    def parts() -> Iterator[ViewOutputs]:
        done, part = 0, None
        for part in view_outputs_of_ranks(model, views, inputs.numerics, stop=chunks):
            yield part
            done += len(part.logits)
        assert part is not None
        for at in range(done, views.rows, CHUNK):
            count = min(CHUNK, views.rows - at)
            yield ViewOutputs(*(table.new_zeros(count, table.shape[1]) for table in part))

    return assemble(parts(), views.rows, inputs.device, inputs.table_folder)


def stage_student(state: DistillState) -> nn.Module:
    """A copy of the student as it was at the start of the stage."""
    student = copy.deepcopy(state.student)
    student.load_state_dict(state.stage_student)
    return student


class SynergyTable(NamedTuple):
    """g(mu), certainty and mu of every row; logits and mu in fp16, in mapped files where the banks
    are."""

    logits: Table
    certainty: Tensor | None
    latent: Table | None


@torch.no_grad()
def synergy_rows(
    method: AlternatingMethod,
    student: ViewOutputs,
    teachers: list[ViewOutputs],
    *,
    which: list[int] | None = None,
    share_FR: Tensor | None = None,
) -> Synergy:
    """g(mu) and certainty for every row, in evaluation mode (restored); logits in fp16.

    `which`: the fusion sees these teachers only. `share_FR`: of several fusions, the share of each
    in the logits of a row (None: the same).
    """
    chunks = list(_synergy(method, student, teachers, which=which, share_FR=share_FR))
    sure = [one.certainty for one in chunks if one.certainty is not None]
    logits = torch.cat([one.logits.half() for one in chunks])
    return Synergy(logits, torch.cat(sure) if sure else None, None)


@torch.no_grad()
def synergy_table(
    inputs: StepInputs,
    method: AlternatingMethod,
    student: Rows,
    teachers: Sequence[Rows],
    *,
    latent: bool = False,
    drawn: tuple[int, int] | None = None,
    share_FR: Tensor | None = None,
    token_R: Tensor | None = None,
) -> SynergyTable:
    """g(mu), certainty and, if requested, mu for all training views.

    `drawn` = (seed, stage): g(z), z sampled once. `share_FR`: as above. `token_R`: the rows whose
    features the fusion reads in place of a row's own.
    """
    rows, device, folder = len(student.logits), inputs.device, inputs.table_folder
    logits, means, sure = Filling(rows, device, folder), Filling(rows, device, folder), []
    for one in _synergy(method, student, teachers, drawn=drawn, share_FR=share_FR, token_R=token_R):
        logits.add(one.logits)
        if one.certainty is not None:
            sure.append(one.certainty)
        if latent and one.latent is not None:
            means.add(one.latent)
    certainty = torch.cat(sure) if sure else None
    return SynergyTable(logits.table(), certainty, means.table() if means.begun else None)


def _synergy(
    method: AlternatingMethod,
    student: Rows,
    teachers: Sequence[Rows],
    *,
    which: list[int] | None = None,
    drawn: tuple[int, int] | None = None,
    share_FR: Tensor | None = None,
    token_R: Tensor | None = None,
) -> Iterator[Synergy]:
    """The fusion's outputs on all rows, CHUNK at a time."""
    with evaluating(method), seeded(*drawn, "synergy") if drawn else nullcontext():
        for at in range(0, len(student.logits), CHUNK):
            part = slice(at, at + CHUNK)
            tokens = part if token_R is None else token_R[part]
            yield method.synergy(
                student.pooled[part].float(),
                [t.logits[part].float() for t in teachers],
                [t.pooled[tokens].float() for t in teachers],
                sample=drawn is not None,
                which=which,
                share_FB=None if share_FR is None else share_FR[:, part],
            )
