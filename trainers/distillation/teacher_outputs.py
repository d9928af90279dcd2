"""What the frozen side says of a batch in the B-Step: read from tables of the clean views, or run
live on the images.

Shapes: B a batch, R rows (images × views), K teachers, C classes, D latent width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers import targets
from trainers.bottleneck import Bottleneck
from trainers.distillation.stage_cache import (
    Synergy,
    stage_student,
    student_bank,
    synergy_rows,
    teacher_banks,
)
from trainers.distillation.state import DistillState, StepInputs
from trainers.loop import evaluating
from trainers.methods.asib import placebos
from trainers.methods.asib.method import Asib
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.models import outputs
from trainers.models.freezing import freeze
from trainers.rng import generator


def source(work: StepInputs, state: DistillState, position: StepPosition) -> Tables | Live | None:
    """Where a B-Step's teaching comes from; None: the run has no teachers."""
    if not work.teachers:
        return None
    method = state.method
    if method.live_targets or method.needs_maps:
        return Live(work, state, mixed=True)
    return Live(work, state, mixed=False) if work.views.fresh else Tables(work, state, position)


def fuses(state: DistillState) -> bool:
    """Whether the student is taught by the fusion module in this step."""
    return isinstance(state.method, Asib) and state.method.fuses and state.gate_open


class Tables:
    """Tables of all clean views, made once at the step's start."""

    def __init__(self, work: StepInputs, state: DistillState, position: StepPosition) -> None:
        self._work, self._state = work, state
        self._banks = teacher_banks(work, state, position.stage)
        self._logits = [bank.train.logits for bank in self._banks]
        self._live_query = fuses(state) and state.method.live_query
        self._synergy = self._fused() if fuses(state) and not self._live_query else None
        if state.method.placebo != "none":
            self._take_out(state.method.placebo, position)

    def teacher_outputs(
        self, rows_B: Tensor, clean_BCHW: Tensor, mixed_BCHW: Tensor
    ) -> TeacherOutputs:
        """What is said of the clean source images of a batch."""
        heard = self._state.method.heard
        said = TeacherOutputs(
            torch.stack([self._logits[k][rows_B].float() for k in heard]),
            pooled=tuple(self._banks[k].train.pooled[rows_B].float() for k in heard),
            image=rows_B // self._work.views.count,
        )
        if self._live_query:
            with evaluating(self._state.student), torch.no_grad():
                query = outputs(self._state.student, clean_BCHW).pooled
            return fused(said, self._state.method, query)
        if self._synergy is None:
            return said
        logits, sure, latent = self._synergy
        return said._replace(
            synergy=logits[rows_B].float(),
            certainty=None if sure is None else sure[rows_B],
            latent=None if latent is None else latent[rows_B].float(),
        )

    def _fused(self) -> Synergy:
        """Synergy logits of all rows for the queries of this stage."""
        method = self._state.method
        assert isinstance(method, Asib)
        student = student_bank(self._work, self._state)
        teachers = [bank.train for bank in self._banks]
        return synergy_rows(method, student.train, teachers, latent=method.config.feat_kd_alpha > 0)

    def _take_out(self, placebo: str, position: StepPosition) -> None:
        """Take the information out of what is said, by fixed draws of the run's seed."""
        views, device = self._work.views, self._work.device
        draw = generator(self._work.config.seed, "placebo", position.stage)
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

    def __init__(self, work: StepInputs, state: DistillState, *, mixed: bool) -> None:
        self._work, self._state, self._mixed = work, state, mixed
        teachers = state.teachers or [teacher.model for teacher in work.teachers]
        self._teachers = [teachers[k] for k in state.method.heard]
        self._query: nn.Module | None = None
        if fuses(state):
            live = state.method.live_query
            self._query = state.student if live else freeze(stage_student(state))

    @torch.no_grad()
    def teacher_outputs(
        self, rows_B: Tensor, clean_BCHW: Tensor, mixed_BCHW: Tensor
    ) -> TeacherOutputs:
        """What is said of the images as they are."""
        method = self._state.method
        images = mixed_BCHW if self._mixed else clean_BCHW
        with self._work.numerics.autocast(self._work.device):
            found = [outputs(t, images, maps=method.needs_maps) for t in self._teachers]
            said = TeacherOutputs(
                torch.stack([one.logits.float() for one in found]),
                pooled=tuple(one.pooled for one in found),
                maps=tuple(one.maps for one in found),
                image=rows_B // self._work.views.count,
            )
            if self._query is None:
                return said
            with evaluating(self._query):
                query = outputs(self._query, images).pooled
            return fused(said, method, query)


@torch.no_grad()
def fused(said: TeacherOutputs, method: nn.Module, query_BD: Tensor) -> TeacherOutputs:
    """What the teachers say, with what the fusion makes of it for a query."""
    assert isinstance(method, Asib)
    with evaluating(method):
        latent: Bottleneck = method.fuse(query_BD, list(said.pooled))
        logits = method.head(latent.mu)
    sure = None if latent.logvar is None else targets.certainty(latent.logvar)
    return said._replace(synergy=logits, certainty=sure, latent=latent.mu)
