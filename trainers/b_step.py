"""The B-Step: the student learns; teachers, fusion module and head stand still.

Shapes: B a batch, R rows (images × views), K teachers, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.loop import keep_best, right, run_steps, set_lr, validation
from trainers.methods.asib import Asib
from trainers.methods.base import Moment, Teaching
from trainers.mixing import mix_images, plan_epoch
from trainers.models import outputs
from trainers.objective import objective
from trainers.run import Bank, DistillState, Slot, Work
from trainers.tables import Synergy, network_bank, student_bank, synergy_rows
from trainers.views import Rows, image_rows


class BStep:
    """One B-Step of one stage. What the frozen side says of every row is made once, here."""

    def __init__(self, work: Work, state: DistillState, moment: Moment, *, fresh: bool) -> None:
        self.work, self.state, self.method = work, state, state.method
        self.teachers = self._teacher_banks()
        self.synergy = self._synergy()

    def _teacher_banks(self) -> list[Bank]:
        """The teachers' banks, made anew where their blocks were tuned."""
        if not self.state.teachers:
            return [t.bank for t in self.work.teachers]
        return [network_bank(self.work, t) for t in self.state.teachers]

    def _synergy(self) -> Synergy | None:
        """Synergy logits of all rows for the queries of this stage; None: gate closed."""
        if not isinstance(self.method, Asib) or not self.method.fuses or not self.state.gate_open:
            return None
        student = student_bank(self.work, self.state)
        return synergy_rows(self.method, student.train, [t.train for t in self.teachers])

    def teaching(self, rows_B: Tensor) -> Teaching:
        """What the frozen side says of a batch of clean source images."""
        logits = torch.stack([t.train.logits[rows_B].float() for t in self.teachers])
        if self.synergy is None:
            return Teaching(logits)
        sure = self.synergy.certainty
        return Teaching(
            logits, self.synergy.logits[rows_B].float(), None if sure is None else sure[rows_B]
        )

    def epoch(self, slot: Slot) -> dict[str, float]:
        """Train one epoch, validate, keep the student if it is the best so far."""
        work, state = self.work, self.state
        metrics = self._train(slot.moment)
        out = image_rows(state.student, work.data.val, work.normalise, work.numerics)
        metrics |= validation(out.logits, work.data.val.labels)
        select, index = work.config.select, state.progress.slot
        keep_best(state.best, metrics.get("val/top1"), index, state.student, select)
        if slot.last and isinstance(self.method, Asib) and self.method.fuses:
            student = Rows(out.logits, out.pooled)
            metrics |= objective(work, self.method, student, [t.val for t in self.teachers])
        return metrics

    def _train(self, moment: Moment) -> dict[str, float]:
        work, state, config = self.work, self.state, self.work.config
        plan = plan_epoch(
            config.seed, "student", moment.epoch, images=len(work.data.train.labels),
            views=work.views.count, batch=config.optim.batch,
            mix=config.mix if config.mix.active(moment.epoch, moment.total) else None,
            size=config.data.image_size, device=work.device,
        )  # fmt: skip
        steps, taught = len(plan.rows), self.method.needs_teachers(moment)
        state.student.train()

        def step(i: int) -> dict[str, Tensor]:
            rows, mix = plan.rows[i], plan.mixes[i]
            lr = config.optim.lr_at(moment.epoch * steps + i, steps, moment.total)
            set_lr(state.optimiser, lr)
            labels = work.views.labels(rows)
            with work.numerics.autocast(work.device):
                out = outputs(state.student, mix_images(work.views.batch(rows), mix))
                teaching = self.teaching(rows) if taught else None
                terms = self.method.student_terms(out, teaching, labels, mix, moment)
            total = torch.stack(list(terms.losses.values())).sum()
            state.optimiser.zero_grad(set_to_none=True)
            total.backward()
            state.optimiser.step()
            named = {f"train/loss/{name}": value for name, value in terms.losses.items()}
            seen = {"train/top1": right(out.logits, labels, mix)} | terms.seen
            return {"train/loss/total": total} | named | seen

        stream = (config.seed, "student", "draws", moment.epoch)
        means = run_steps(state.progress, steps, step, state.stop, stream)
        means["cost/images_per_second"] = plan.rows.numel() / means.pop("steps_seconds")
        means["train/lr"] = config.optim.lr_at((moment.epoch + 1) * steps - 1, steps, moment.total)
        if taught and isinstance(self.method, Asib):
            means["kd/weight"] = self.method.kd_weight(moment)
        return means
