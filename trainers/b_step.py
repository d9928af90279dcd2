"""The B-Step: the student learns; teachers, fusion module and head stand still.

Shapes: B a batch, R rows (images × views), K teachers, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import freezing, health
from trainers.loop import average_into, keep_best, right, run_steps, set_lr, validation
from trainers.methods.asib import Asib
from trainers.methods.base import Moment, Teaching
from trainers.mixing import mix_images, plan_epoch
from trainers.models import outputs
from trainers.objective import objective
from trainers.run import DistillState, Slot, Work
from trainers.tables import teacher_val
from trainers.teaching import source
from trainers.views import Rows, image_rows


class BStep:
    """One B-Step of one stage. What the frozen side says of every row is made once, here."""

    def __init__(self, work: Work, state: DistillState, moment: Moment, *, fresh: bool) -> None:
        self.work, self.state, self.method = work, state, state.method
        self.level = self.method.student_level(moment.stage)
        freezing.set_level(state.student, self.level)
        self.source = source(work, state, moment)

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
            metrics |= objective(work, self.method, student, teacher_val(work, state))
        return metrics

    @torch.no_grad()
    def _with_ema(self, teaching: Teaching, clean: Tensor, mixed: Tensor) -> Teaching:
        """The average of the student speaks too, of the images that the teachers speak of."""
        if self.state.ema is None:
            return teaching
        images = mixed if self.method.live_targets else clean
        return teaching._replace(ema=outputs(self.state.ema, images).logits.float())

    def _average(self, step: int) -> None:
        """Move the average of the student, after optimiser step `step` of all."""
        if self.method.ema is None or self.state.ema is None:
            return
        decay, every = self.method.ema
        if (step + 1) % every == 0:
            average_into(self.state.ema, self.state.student, decay)

    def _train(self, moment: Moment) -> dict[str, float]:
        work, state, config = self.work, self.state, self.work.config
        plan = plan_epoch(
            config.seed, "student", moment.epoch, images=len(work.data.train.labels),
            views=work.views.count, batch=config.optim.batch,
            mix=config.mix if config.mix.active(moment.epoch, moment.total) else None,
            size=config.data.image_size, device=work.device,
        )  # fmt: skip
        work.views.redraw(config.seed, "student", moment.epoch)
        steps, taught = len(plan.rows), self.method.needs_teachers(moment)
        self.method.train(bool(self.method.trainable("B")))
        freezing.train_mode(state.student, self.level, self.method.freeze_bn)

        def step(i: int) -> dict[str, Tensor]:
            rows, mix = plan.rows[i], plan.mixes[i]
            lr = config.optim.lr_at(moment.epoch * steps + i, steps, moment.total)
            set_lr(state.optimiser, lr)
            labels = work.views.labels(rows)
            with work.numerics.autocast(work.device):
                clean = work.views.batch(rows)
                images = mix_images(clean, mix)
                out = outputs(state.student, images, maps=self.method.needs_maps)
                teaching = None
                if self.source is not None and taught:
                    teaching = self.source.teaching(rows, clean, images)
                    teaching = self._with_ema(teaching, clean, images)
                terms = self.method.student_terms(out, teaching, labels, mix, moment)
            total = torch.stack(list(terms.losses.values())).sum()
            state.optimiser.zero_grad(set_to_none=True)
            total.backward()
            state.optimiser.step()
            self._average(moment.epoch * steps + i)
            named = {f"train/loss/{name}": value for name, value in terms.losses.items()}
            seen = {"train/top1": right(out.logits, labels, mix)} | terms.seen
            return {"train/loss/total": total} | named | seen

        stream = (config.seed, "student", "draws", moment.epoch)
        means = run_steps(state.progress, steps, step, state.stop, stream)
        means["stage/student_trainable_requested"] = freezing.requested_fraction(
            state.student, self.level
        )
        means["stage/student_trainable"] = freezing.moved_fraction(state.student)
        means["cost/step_seconds"] = means["steps_seconds"] / steps
        means["cost/images_per_second"] = plan.rows.numel() / means.pop("steps_seconds")
        means["train/lr"] = config.optim.lr_at((moment.epoch + 1) * steps - 1, steps, moment.total)
        if taught and (own := self.method.trainable("B")):
            means["kd/module_grad"] = health.weakest_gradient(own)
        weight = self.method.kd_weight(moment)
        if weight is not None and self.method.config.reads_teachers():
            means["kd/weight"] = weight
        return means
