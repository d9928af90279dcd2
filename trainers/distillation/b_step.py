"""The B-Step: the student learns; teachers, fusion module and head are frozen.

Shapes: B a batch, L of it, the first, with a label, R rows (images × views), K teachers, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import measures, metrics
from trainers.averages import average_into
from trainers.distillation import placebos
from trainers.distillation.objective import objective
from trainers.distillation.ready_outputs import ReadyOutputs
from trainers.distillation.stage_cache import teacher_val
from trainers.distillation.state import DistillState, PlannedEpoch, StepInputs
from trainers.distillation.teacher_outputs import source
from trainers.loop import keep_best, nothing, right, run_steps, validation
from trainers.methods.alternating import alternating
from trainers.methods.base import StepPosition
from trainers.mixing import mix_images
from trainers.models import freezing, step_outputs
from trainers.optim import gradient_step, lr_table, set_lr
from trainers.read_ahead import reading_ahead
from trainers.step_index import Index, select
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
        out = image_outputs(
            state.student, inputs.data.val, inputs.normalise, inputs.numerics, of_ranks=True
        )
        values |= validation(out.logits, inputs.data.val.labels)
        select, index = inputs.config.select, state.progress.slot
        keep_best(state.best, values.get(metrics.VAL_TOP1), index, state.student, select)
        if planned.last and (method := alternating(self.method)):
            stage, found = planned.position.stage, teacher_val(inputs, state)
            teachers = placebos.of_validation(inputs, method, stage, found)
            student = ViewOutputs(out.logits, out.pooled)
            values |= objective(inputs, method, student, teachers)
        return values

    def _train(self, position: StepPosition) -> dict[str, float]:
        state, config = self.state, self.inputs.config
        mixes = config.mix.active(position.epoch, position.total)
        plan = self.inputs.plan(
            "student",
            position,
            config.mix if mixes else None,
            unlabelled=config.method.is_taught(),
        )
        views, source = self.inputs.views, self.source
        labels_SL, crops = views.labels(plan.rows[:, : plan.labelled]), views.crops(plan.rows)
        shown_SXL, share_SX = plan.shown(labels_SL)
        ready, graphs = None, state.graphs
        if source is not None and not source.live and self.method.needs_teachers(position):
            ready = ReadyOutputs(
                self.inputs, source, self.method, plan, labels_SL, position, fixed=bool(graphs)
            )
        if graphs is not None:
            graphs.without("student", self.inputs.obstacle(banks=ready is None))
        self.method.train(bool(self.method.trainable("B")))
        freezing.train_mode(state.student, self.level, self.method.freeze_bn)
        numerics, maps, steps = self.inputs.numerics, self.method.needs_maps, len(plan.rows)
        scaler = state.scaler if numerics.mixed else None
        done = position.epoch * steps
        rates = [self._lr(done + i, steps, position) for i in range(steps)]
        lr = lr_table(rates, self.inputs.device)

        def step(i: Index) -> dict[str, Tensor]:
            set_lr(state.optimiser, lr(i))
            with numerics.autocast(self.inputs.device):
                clean, labels, mix = views.cut(crops.at(i)), select(labels_SL, i), plan.mix(i)
                images = mix_images(clean, mix)
                out = step_outputs(state.student, images, maps=maps, compiled=numerics.compile)
                found = None
                if ready is not None:
                    found = ready.of_step(i)
                elif source is not None and self.method.needs_teachers(position):
                    at = self.method.needed_images(out, labels, mix)
                    found = source.teacher_outputs(select(plan.rows, i), clean, images, at)
                terms = self.method.student_terms(out, found, labels, mix, position)
            total = torch.stack(list(terms.losses.values())).sum()
            skipped = gradient_step(total, state.optimiser, scaler)
            named = {metrics.LOSS + name: value for name, value in terms.losses.items()}
            top1 = right(out.logits, select(shown_SXL, i), select(share_SX, i))
            seen = {metrics.TRAIN_TOP1: top1} | terms.seen
            return {metrics.LOSS_TOTAL: total} | named | seen | skipped

        reads = source.reads(plan.rows) if source is not None else []
        reads = ready.reads() if ready is not None else reads
        with reading_ahead([views.reads(plan.rows), *reads]):
            means = run_steps(
                state.progress,
                steps,
                step,
                state.stop,
                (config.seed, "student", "draws", position.epoch),
                before=ready.make if ready else nothing,
                after=lambda i: self._average(done + i),
                graphs=graphs,
            )
        return means | self._facts(position, plan.rows, means.pop("steps_seconds"))

    def _average(self, step: int) -> None:
        """Move the average of the student, after optimiser step `step` of all."""
        if self.method.ema is None or self.state.ema is None:
            return
        decay, every = self.method.ema
        if (step + 1) % every == 0:
            average_into(self.state.ema, self.state.student, decay)

    def _lr(self, step: int, steps: int, position: StepPosition) -> float:
        """Learning rate of an optimiser step, counted over all B-Step epochs of `steps` each."""
        return self.inputs.config.optim.lr_at(step, steps, position.total)

    def _facts(self, position: StepPosition, rows: Tensor, seconds: float) -> dict[str, float]:
        """What is measured once an epoch, after its steps took `seconds`."""
        student, method, steps = self.state.student, self.method, len(rows)
        found = {
            metrics.STUDENT_TRAINABLE_REQUESTED: freezing.requested_fraction(student, self.level),
            metrics.STUDENT_TRAINABLE: freezing.moved_fraction(student),
            metrics.STEP_SECONDS: seconds / steps,
            metrics.IMAGES_PER_SECOND: rows.numel() / seconds,
            metrics.LR: self._lr((position.epoch + 1) * steps - 1, steps, position),
        }
        if method.needs_teachers(position) and (own := method.trainable("B")):
            found |= measures.gradient_metric(metrics.KD_MODULE_GRAD, own)
        weight = method.kd_weight(position)
        if weight is not None and self.inputs.teachers:
            found[metrics.KD_WEIGHT] = weight
        return found
