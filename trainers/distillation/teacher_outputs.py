"""Teacher outputs of a batch in the B-Step: read from tables of the clean views, or run live on the
images.

Shapes: B a batch, R rows (images × views), K teachers, C classes, D latent width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import targets
from trainers.distillation import placebos
from trainers.distillation.stage_cache import (
    Synergy,
    stage_student,
    student_bank,
    synergy_rows,
    teacher_banks,
)
from trainers.distillation.state import DistillState, StepInputs
from trainers.loop import evaluating
from trainers.methods.alternating import AlternatingMethod, alternating
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.models import outputs
from trainers.models.freezing import freeze
from trainers.rng import generator


def source(inputs: StepInputs, state: DistillState, position: StepPosition) -> Tables | Live | None:
    """Source of a B-Step's teacher outputs; None: the run has no teachers."""
    if not inputs.teachers:
        return None
    method = state.method
    if method.live_targets or method.needs_maps:
        return Live(inputs, state, mixed=True)
    return (
        Live(inputs, state, mixed=False) if inputs.views.fresh else Tables(inputs, state, position)
    )


def open_fusion(state: DistillState) -> AlternatingMethod | None:
    """The method, if its fusion module teaches the student in this step (the gate is open)."""
    return alternating(state.method) if state.gate_open else None


class Tables:
    """Tables of all clean views, made once at the step's start."""

    def __init__(self, inputs: StepInputs, state: DistillState, position: StepPosition) -> None:
        self._inputs, self._state = inputs, state
        self._banks = teacher_banks(inputs, state, position.stage)
        self._logits = [bank.train.logits for bank in self._banks]
        method, fusion = state.method, open_fusion(state)
        self._live = fusion if fusion and fusion.live_query else None
        self._synergy = self._fused(fusion) if fusion and not self._live else None
        if isinstance(method, AlternatingMethod) and method.placebo != "none":
            self._remove_information(method.placebo, position)

    def teacher_outputs(
        self, rows_B: Tensor, clean_BCHW: Tensor, mixed_BCHW: Tensor
    ) -> TeacherOutputs:
        """Outputs on the clean source images of a batch."""
        used = self._state.method.teachers_used
        found = TeacherOutputs(
            torch.stack([self._logits[k][rows_B].float() for k in used]),
            pooled=tuple(self._banks[k].train.pooled[rows_B].float() for k in used),
            image=rows_B // self._inputs.views.count,
        )
        if self._live:
            with evaluating(self._state.student), torch.no_grad():
                query = outputs(self._state.student, clean_BCHW).pooled
            return fused(found, self._live, query)
        if self._synergy is None:
            return found
        logits, sure, latent = self._synergy
        return found._replace(
            synergy=logits[rows_B].float(),
            certainty=None if sure is None else sure[rows_B],
            latent=None if latent is None else latent[rows_B].float(),
        )

    def _fused(self, method: AlternatingMethod) -> Synergy:
        """Synergy logits of all rows for the queries of this stage."""
        student = student_bank(self._inputs, self._state)
        teachers = [bank.train for bank in self._banks]
        return synergy_rows(method, student.train, teachers, latent=method.config.feat_kd_alpha > 0)

    def _remove_information(self, placebo: str, position: StepPosition) -> None:
        """Permute the tables by fixed draws of the run's seed."""
        views, device = self._inputs.views, self._inputs.device
        draw = generator(self._inputs.config.seed, "placebo", position.stage)
        if placebo == "teachers":
            row = torch.arange(views.rows, device=device)
            self._logits = placebos.shuffled_rest(self._logits, views.labels(row), draw)
        elif self._synergy is not None:
            other = placebos.other_images(views.rows // views.count, views.count, draw).to(device)
            logits, sure, latent = self._synergy
            self._synergy = Synergy(
                logits[other],
                None if sure is None else sure[other],
                None if latent is None else latent[other],
            )


class Live:
    """Teachers, and the student of the stage's start (or of now) as query, run on the images that
    the student sees (`mixed`), or on their clean sources."""

    def __init__(self, inputs: StepInputs, state: DistillState, *, mixed: bool) -> None:
        self._inputs, self._state, self._mixed = inputs, state, mixed
        teachers = state.teachers or [teacher.model for teacher in inputs.teachers]
        self._teachers = [teachers[k] for k in state.method.teachers_used]
        self._fusion, self._query = open_fusion(state), state.student
        if self._fusion and not self._fusion.live_query:
            self._query = freeze(stage_student(state))

    @torch.no_grad()
    def teacher_outputs(
        self, rows_B: Tensor, clean_BCHW: Tensor, mixed_BCHW: Tensor
    ) -> TeacherOutputs:
        """Outputs on the images as they are."""
        images = mixed_BCHW if self._mixed else clean_BCHW
        with self._inputs.numerics.autocast(self._inputs.device):
            each = [outputs(t, images, maps=self._state.method.needs_maps) for t in self._teachers]
            found = TeacherOutputs(
                torch.stack([one.logits.float() for one in each]),
                pooled=tuple(one.pooled for one in each),
                maps=tuple(one.maps for one in each),
                image=rows_B // self._inputs.views.count,
            )
            if self._fusion is None:
                return found
            with evaluating(self._query):
                query = outputs(self._query, images).pooled
            return fused(found, self._fusion, query)


@torch.no_grad()
def fused(teachers: TeacherOutputs, method: AlternatingMethod, query_BD: Tensor) -> TeacherOutputs:
    """The teachers' outputs, with those of the fusion for a query."""
    with evaluating(method):
        latent = method.fuse(query_BD, list(teachers.pooled))
        logits = method.head(latent.mu)
    certainty = None if latent.logvar is None else targets.certainty(latent.logvar)
    return teachers._replace(synergy=logits, certainty=certainty, latent=latent.mu)
