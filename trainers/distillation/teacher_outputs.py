"""Teacher outputs of a batch in the B-Step: read from tables of the clean views, or run live on the
images.

Shapes: B a batch, R rows (images × views), K teachers, C classes, D latent width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from trainers import stacking
from trainers.distillation import folds, placebos, stage_cache
from trainers.distillation.stage_cache import (
    SynergyTable,
    stage_student,
    student_bank,
    synergy_table,
    teacher_banks,
)
from trainers.distillation.state import DistillState, StepInputs
from trainers.loop import evaluating
from trainers.methods.alternating import AlternatingMethod, alternating
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.models import outputs, step_outputs
from trainers.models.freezing import freeze
from trainers.read_ahead import Reads
from trainers.tables import Table

NOT_READ = torch.empty(0)


def source(inputs: StepInputs, state: DistillState, position: StepPosition) -> Source | None:
    """Source of a B-Step's teacher outputs; None: the run has no teachers."""
    return Source(inputs, state, position) if inputs.teachers else None


class Teachers(Protocol):
    """Where the teachers' own outputs come from."""

    def __call__(self, rows_B: Tensor, images_BCHW: Tensor) -> TeacherOutputs:
        """Logits and features of the teachers that the method uses."""
        ...


class Tables:
    """Tables of all clean views, made once at the step's start."""

    def __init__(self, inputs: StepInputs, state: DistillState, stage: int) -> None:
        self.banks = teacher_banks(inputs, state, stage)
        self.used = [self.banks[k].train for k in state.method.teachers_used]
        self._views = inputs.views.count

    def __call__(self, rows_B: Tensor, images_BCHW: Tensor) -> TeacherOutputs:
        return TeacherOutputs(
            torch.stack([table.logits[rows_B].float() for table in self.used]),
            pooled=tuple(table.pooled[rows_B].float() for table in self.used),
            image=rows_B // self._views,
        )


class Live:
    """Teachers run on the images."""

    def __init__(self, inputs: StepInputs, state: DistillState) -> None:
        teachers = state.teachers or [teacher.model for teacher in inputs.teachers]
        self._teachers = [teachers[k] for k in state.method.teachers_used]
        self._maps, self._views = state.method.needs_maps, inputs.views.count
        self._compiled = inputs.numerics.compile

    def __call__(self, rows_B: Tensor, images_BCHW: Tensor) -> TeacherOutputs:
        each = [
            step_outputs(teacher, images_BCHW, maps=self._maps, compiled=self._compiled)
            for teacher in self._teachers
        ]
        return TeacherOutputs(
            torch.stack([one.logits.float() for one in each]),
            pooled=tuple(one.pooled for one in each),
            maps=tuple(one.maps for one in each),
            image=rows_B // self._views,
        )


class Source:
    """Outputs of the teachers, of the student's average and of the fusion, for one B-Step.

    They are of the clean source images, or of the mixed ones where the method has `live_targets` or
    `needs_maps`. The fusion is left out where the gate is closed.
    """

    def __init__(self, inputs: StepInputs, state: DistillState, position: StepPosition) -> None:
        self._inputs, self._state, method = inputs, state, state.method
        self._mixed = method.live_targets or method.needs_maps
        tables = not (self._mixed or inputs.views.fresh)
        self._placebo = placebos.of_stage(inputs, method, position.stage)
        self._folds = folds.of_run(inputs, method)
        self._fusion = alternating(method) if state.gate_open else None
        self._query = state.student
        self._synergy: SynergyTable | None = None
        self._stack = stage_cache.stack(inputs, state) if method.stack_features else None
        self._teachers: Teachers = Live(inputs, state)
        if tables:
            self._teachers = banks = Tables(inputs, state, position.stage)
            if self._fusion and not self._fusion.live_query:
                self._synergy = self._table(self._fusion, banks, position.stage)
        elif self._fusion and not self._fusion.live_query:
            self._query = freeze(stage_student(state))
        fused = self._fusion is not None and self._synergy is None
        self._ema = state.ema if method.ema_teaches else None
        self.live = not tables or fused or self._ema is not None  # networks are run in the loop

    def reads(self, plan: Iterable[Tensor]) -> list[Reads]:
        """What is read of tables for these rows."""
        found: list[Table | None] = []
        if isinstance(self._teachers, Tables):
            found += [table for rows in self._teachers.used for table in (rows.logits, rows.pooled)]
        if self._synergy is not None:
            found += [self._synergy.logits, self._synergy.latent]
        if self._placebo is not None:
            found.append(self._placebo.order)
        return [Reads(table, plan) for table in found]

    @torch.no_grad()
    def teacher_outputs(
        self,
        rows_B: Tensor,
        clean_BCHW: Tensor = NOT_READ,
        mixed_BCHW: Tensor = NOT_READ,
        at: Tensor | None = None,
    ) -> TeacherOutputs:
        """Outputs on the images of a batch, which are read where networks are run (`live`), or on
        those of them that `at` lists."""
        images = mixed_BCHW if self._mixed else clean_BCHW
        if at is None:
            return self._outputs(rows_B, images)
        return self._outputs(rows_B[at], images[at])._replace(at=at)

    def _outputs(self, rows_B: Tensor, images: Tensor) -> TeacherOutputs:
        """Under a placebo of the fusion its outputs are of other images; where routing and weights
        are too, they are those of the `donor`."""
        placebo = self._placebo
        with self._inputs.numerics.autocast(self._inputs.device):
            found = self._unfused(rows_B, images)
            if placebo is not None and placebo.kind == placebos.TEACHERS:
                labels = self._inputs.views.labels(rows_B)
                return found._replace(teachers=placebo.shuffled(found.teachers, labels, rows_B))
            if self._fusion is None:
                return found
            if placebo is None or placebo.kind == placebos.TOKENS:
                return self._fused(self._fusion, found, rows_B, images)
            other = placebo.other(rows_B)
            if self.live:
                images = self._inputs.views.batch(other)
            donor = self._fused(self._fusion, self._unfused(other, images), other, images)
        if placebo.kind != placebos.BY_LABEL:
            return found._replace(donor=donor)
        return found._replace(synergy=donor.synergy, certainty=donor.certainty, latent=donor.latent)

    def _unfused(self, rows_B: Tensor, images_BCHW: Tensor) -> TeacherOutputs:
        """The outputs of the teachers, of their stack where the method reads it, and of the
        student's average where it teaches too."""
        found = self._teachers(rows_B, images_BCHW)
        if self._stack is not None:
            reads_pooled = self._state.method.stack_features == "pooled"
            features = found.pooled if reads_pooled else found.teachers.unbind()
            logits_BC = self._stack.logits(stacking.stacked(list(features)))
            found = found._replace(stack=logits_BC)
        if self._ema is None:
            return found
        return found._replace(ema=outputs(self._ema, images_BCHW).logits.float())

    def _fused(
        self,
        method: AlternatingMethod,
        found: TeacherOutputs,
        rows_B: Tensor,
        images_BCHW: Tensor,
    ) -> TeacherOutputs:
        """The outputs with those of the fusion: of its table, or for a query of the images."""
        if self._synergy is not None:
            logits, sure, latent = self._synergy
            return found._replace(
                synergy=logits[rows_B].float(),
                certainty=None if sure is None else sure[rows_B],
                latent=None if latent is None else latent[rows_B].float(),
            )
        tokens = found.pooled
        if self._placebo is not None and self._placebo.kind == placebos.TOKENS:
            other = self._placebo.other(rows_B)
            tokens = self._teachers(other, self._inputs.views.batch(other)).pooled
        query = None
        if method.reads_query:
            with evaluating(self._query):
                query = outputs(self._query, images_BCHW).pooled
        with evaluating(method):
            logits, sure, latent = method.synergy(
                query,
                list(found.teachers),
                list(tokens),
                sample=method.samples_targets,
                share_FB=self._folds.share(rows_B) if self._folds else None,
            )
        return found._replace(synergy=logits, certainty=sure, latent=latent)

    def _table(self, method: AlternatingMethod, tables: Tables, stage: int) -> SynergyTable:
        """Synergy logits of all rows for the queries of this stage."""
        student = student_bank(self._inputs, self._state)
        rows = torch.arange(self._inputs.views.rows, device=self._inputs.device)
        shuffles = self._placebo is not None and self._placebo.kind == placebos.TOKENS
        return synergy_table(
            self._inputs,
            method,
            student.train,
            [bank.train for bank in tables.banks],
            token_R=self._placebo.other(rows) if self._placebo and shuffles else None,
            latent=method.config.feat_kd_alpha > 0,
            drawn=(self._inputs.config.seed, stage) if method.samples_targets else None,
            share_FR=self._folds.share(rows) if self._folds else None,
        )
