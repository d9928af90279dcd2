"""The B-Step: the student learns; teachers, fusion module and head are frozen.

Shapes: B a batch, R rows (images × views), K teachers, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import measures, metrics
from trainers.averages import average_into
from trainers.distillation.objective import objective
from trainers.distillation.stage_cache import teacher_val
from trainers.distillation.state import DistillState, PlannedEpoch, StepInputs
from trainers.distillation.teacher_outputs import source
from trainers.loop import keep_best, right, run_steps, validation
from trainers.methods.alternating import alternating
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.mixing import mix_images, plan_epoch
from trainers.models import freezing, outputs
from trainers.optim import set_lr
from trainers.view_bank import ViewOutputs, image_outputs


class BStep:
    """One B-Step of one stage. Tables of the frozen networks' outputs are made once, here."""

    def __init__(
        self, inputs: StepInputs, state: DistillState, position: StepPosition, *, fresh: bool
    ) -> None:
        self.inputs, self.state, self.method = inputs, state, state.method
        self.level = self.method.student_level(position.stage)
        freezing.set_level(state.student, self.level)
        self.source = source(inputs, state, position)

    def epoch(self, planned: PlannedEpoch) -> dict[str, float]:
        """Train one epoch, validate, keep the student if it is the best so far."""
        inputs, state = self.inputs, self.state
        values = self._train(planned.position)
        out = image_outputs(state.student, inputs.data.val, inputs.normalise, inputs.numerics)
        values |= validation(out.logits, inputs.data.val.labels)
        select, index = inputs.config.select, state.progress.slot
        keep_best(state.best, values.get(metrics.VAL_TOP1), index, state.student, select)
        if planned.last and (method := alternating(self.method)):
            student = ViewOutputs(out.logits, out.pooled)
            values |= objective(inputs, method, student, teacher_val(inputs, state))
        return values

    @torch.no_grad()
    def _with_ema(
        self, teacher_outputs: TeacherOutputs, clean: Tensor, mixed: Tensor
    ) -> TeacherOutputs:
        """Add the logits of the student's average, on the images that the teachers see."""
        if self.state.ema is None:
            return teacher_outputs
        images = mixed if self.method.live_targets else clean
        return teacher_outputs._replace(ema=outputs(self.state.ema, images).logits.float())

    def _average(self, step: int) -> None:
        """Move the average of the student, after optimiser step `step` of all."""
        if self.method.ema is None or self.state.ema is None:
            return
        decay, every = self.method.ema
        if (step + 1) % every == 0:
            average_into(self.state.ema, self.state.student, decay)

    def _train(self, position: StepPosition) -> dict[str, float]:
        inputs, state, config = self.inputs, self.state, self.inputs.config
        plan = plan_epoch(
            config.seed,
            "student",
            position.epoch,
            images=len(inputs.data.train.labels),
            views=inputs.views.count,
            batch=config.optim.batch,
            mix=config.mix if config.mix.active(position.epoch, position.total) else None,
            size=config.data.image_size,
            device=inputs.device,
        )
        inputs.views.redraw(config.seed, "student", position.epoch)
        steps, taught = len(plan.rows), self.method.needs_teachers(position)
        self.method.train(bool(self.method.trainable("B")))
        freezing.train_mode(state.student, self.level, self.method.freeze_bn)

        def step(i: int) -> dict[str, Tensor]:
            rows, mix = plan.rows[i], plan.mixes[i]
            lr = config.optim.lr_at(position.epoch * steps + i, steps, position.total)
            set_lr(state.optimiser, lr)
            labels = inputs.views.labels(rows)
            with inputs.numerics.autocast(inputs.device):
                clean = inputs.views.batch(rows)
                images = mix_images(clean, mix)
                out = outputs(state.student, images, maps=self.method.needs_maps)
                teacher_outputs = None
                if self.source is not None and taught:
                    teacher_outputs = self.source.teacher_outputs(rows, clean, images)
                    teacher_outputs = self._with_ema(teacher_outputs, clean, images)
                terms = self.method.student_terms(out, teacher_outputs, labels, mix, position)
            total = torch.stack(list(terms.losses.values())).sum()
            state.optimiser.zero_grad(set_to_none=True)
            total.backward()
            state.optimiser.step()
            self._average(position.epoch * steps + i)
            named = {metrics.LOSS + name: value for name, value in terms.losses.items()}
            seen = {metrics.TRAIN_TOP1: right(out.logits, labels, mix)} | terms.seen
            return {metrics.LOSS_TOTAL: total} | named | seen

        stream = (config.seed, "student", "draws", position.epoch)
        means = run_steps(state.progress, steps, step, state.stop, stream)
        means[metrics.STUDENT_TRAINABLE_REQUESTED] = freezing.requested_fraction(
            state.student, self.level
        )
        means[metrics.STUDENT_TRAINABLE] = freezing.moved_fraction(state.student)
        means[metrics.STEP_SECONDS] = means["steps_seconds"] / steps
        means[metrics.IMAGES_PER_SECOND] = plan.rows.numel() / means.pop("steps_seconds")
        means[metrics.LR] = config.optim.lr_at(
            (position.epoch + 1) * steps - 1, steps, position.total
        )
        if taught and (own := self.method.trainable("B")):
            means[metrics.KD_MODULE_GRAD] = measures.weakest_gradient(own)
        weight = self.method.kd_weight(position)
        if weight is not None and self.method.config.reads_teachers():
            means[metrics.KD_WEIGHT] = weight
        return means
