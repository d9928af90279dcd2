"""What the frozen side says of a batch in the B-Step: read from tables of the clean views, or run
on the very images that the student sees.

Shapes: B a batch, R rows (images × views), K teachers, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import placebos, targets
from trainers.freezing import freeze
from trainers.methods.asib import Asib
from trainers.methods.base import Moment, Teaching
from trainers.models import outputs
from trainers.run import Bank, DistillState, Work
from trainers.streams import generator
from trainers.tables import Synergy, network_bank, stage_student, student_bank, synergy_rows


def fuses(state: DistillState) -> bool:
    """Whether the student is taught by the fusion module in this step."""
    return isinstance(state.method, Asib) and state.method.fuses and state.gate_open


class Tables:
    """Tables of all clean views, made once at the step's start."""

    def __init__(self, work: Work, state: DistillState, moment: Moment) -> None:
        self._banks = _teacher_banks(work, state)
        self._logits = [bank.train.logits for bank in self._banks]
        self._synergy = self._fused(work, state) if fuses(state) else None
        if state.method.placebo != "none":
            self._take_out(state.method.placebo, work, moment)

    def teaching(self, rows_B: Tensor, images_BCHW: Tensor) -> Teaching:
        """What is said of the clean source images of a batch."""
        logits = torch.stack([table[rows_B].float() for table in self._logits])
        if self._synergy is None:
            return Teaching(logits)
        sure = self._synergy.certainty
        return Teaching(
            logits, self._synergy.logits[rows_B].float(), None if sure is None else sure[rows_B]
        )

    def _fused(self, work: Work, state: DistillState) -> Synergy:
        """Synergy logits of all rows for the queries of this stage."""
        assert isinstance(state.method, Asib)
        student = student_bank(work, state)
        return synergy_rows(state.method, student.train, [bank.train for bank in self._banks])

    def _take_out(self, placebo: str, work: Work, moment: Moment) -> None:
        """Take the information out of what is said, by fixed draws of the run's seed."""
        draw = generator(work.config.seed, "placebo", moment.stage)
        if placebo == "teachers":
            row = torch.arange(work.views.rows, device=work.device)
            self._logits = placebos.shuffled_rest(self._logits, work.views.labels(row), draw)
        elif self._synergy is not None:
            count = work.views.count
            other = placebos.other_images(work.views.rows // count, count, draw).to(work.device)
            logits, sure = self._synergy
            self._synergy = Synergy(logits[other], None if sure is None else sure[other])


class Live:
    """Teachers, and the student of the stage's start as query, run on the student's images."""

    def __init__(self, work: Work, state: DistillState, moment: Moment) -> None:
        self._numerics, self._device = work.numerics, work.device
        self._teachers = state.teachers or [teacher.model for teacher in work.teachers]
        self._method, self._query = state.method, None
        if fuses(state):
            self._query = freeze(stage_student(state))

    @torch.no_grad()
    def teaching(self, rows_B: Tensor, images_BCHW: Tensor) -> Teaching:
        """What is said of the images as they are, mixed."""
        with self._numerics.autocast(self._device):
            said = [outputs(teacher, images_BCHW) for teacher in self._teachers]
            logits = torch.stack([one.logits.float() for one in said])
            if self._query is None:
                return Teaching(logits)
            assert isinstance(self._method, Asib)
            self._method.eval()
            query = outputs(self._query, images_BCHW).pooled
            latent = self._method.fuse(query, [one.pooled for one in said])
            sure = None if latent.logvar is None else targets.certainty(latent.logvar)
            return Teaching(logits, self._method.head(latent.mu), sure)


def _teacher_banks(work: Work, state: DistillState) -> list[Bank]:
    """The teachers' banks, made anew where their blocks were tuned."""
    if not state.teachers:
        return [teacher.bank for teacher in work.teachers]
    return [network_bank(work, teacher) for teacher in state.teachers]
