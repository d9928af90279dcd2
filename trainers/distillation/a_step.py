"""The A-Step: the fusion module, its head and adapters learn; the student is frozen.

Shapes: B a batch, R rows (images × views), M validation images, K teachers, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers import measures, metrics, models
from trainers.averages import moving_average
from trainers.distillation import folds, placebos
from trainers.distillation.objective import objective
from trainers.distillation.stage_cache import (
    heads_only,
    reclassified,
    stage_student,
    student_bank,
    synergy_rows,
    teacher_banks,
    teacher_val,
    tuned_outputs,
)
from trainers.distillation.state import DistillState, PlannedEpoch, StepInputs
from trainers.distillation.synergy_gain import Read, query_and_tokens, unfused
from trainers.loop import run_steps, snapshot, top1
from trainers.methods.alternating import AlternatingMethod, alternating
from trainers.methods.base import StepPosition
from trainers.methods.information_plane import information
from trainers.models import Outputs, freezing, outputs
from trainers.optim import adamw, gradient_step, load_optimiser
from trainers.read_ahead import Reads, reading_ahead
from trainers.step_index import Index, select
from trainers.view_bank import BANK_CHUNK, Bank, ViewOutputs

ADAPTERS = ("query_adapter.", "teacher_adapters.")
SAMPLE = 4096  # training images, at most, of which the accuracy of the fusion is measured
FUSION = ("fusion.", "head.")  # parameters that ib_mbm_lr_factor scales


class AStep:
    """One A-Step of one stage, from its start (`fresh`) or from where a run resumes inside it."""

    def __init__(
        self, inputs: StepInputs, state: DistillState, position: StepPosition, *, fresh: bool
    ) -> None:
        method = alternating(state.method)
        assert method is not None, "a run without an A-Step has no A epochs in its plan"
        self.inputs, self.state, self.method = inputs, state, method
        if fresh:
            averaged = state.ema if method.ema_query else None
            state.stage_student, state.queries = snapshot(averaged or state.student), None
            state.a_best, state.pending_a_optimiser = {}, None
            rows = enumerate(teacher_val(inputs, state) if state.teachers else [])
            labels = inputs.data.val.labels
            state.notes = {
                metrics.teacher(k, "top1_before"): top1(r.logits, labels) for k, r in rows
            }
        self.student = student_bank(inputs, state)
        placebo, self.stage = placebos.of_stage(inputs, method, position.stage), position.stage
        self.folds = folds.of_run(inputs, method)
        self.tokens = placebo if placebo and placebo.kind == placebos.TOKENS else None
        self.fresh = inputs.views.fresh
        if self.fresh:
            self.frozen_student = freezing.freeze(stage_student(state))
        self.tuned = self._unfreeze(position.stage)
        # While only classifiers learn, their pooled features are constant: read from tables.
        self.pooled: list[Bank] | None = None
        if state.teachers and heads_only(inputs, state, position.stage):
            self.pooled = teacher_banks(inputs, state, position.stage)
        self.optimiser = self._build_optimiser()
        if state.pending_a_optimiser is not None:
            load_optimiser(self.optimiser, state.pending_a_optimiser)
            state.pending_a_optimiser = None
        state.a_optimiser = self.optimiser

    def epoch(self, planned: PlannedEpoch) -> dict[str, float]:
        """Train one epoch; evaluate where it is due; at the end restore the best state."""
        state, config = self.state, self.method.config
        values = self._train(planned.position) | state.notes
        state.notes = {}
        values[metrics.BETA] = self.method.beta(planned.position)
        values[metrics.LR] = config.a_lr
        if planned.last or (planned.position.in_step + 1) % config.teacher_eval_every == 0:
            values |= self._evaluate(planned.position)
        return values | self._finish() if planned.last else values

    def _unfreeze(self, stage: int) -> list[nn.Parameter]:
        """Let the teachers' top blocks of this stage learn; give their parameters."""
        level = self.method.teacher_level(stage)
        for teacher in self.state.teachers:
            freezing.set_level(teacher, level)
            teacher.zero_grad(set_to_none=True)  # of blocks that learned in the stage before
        return [p for t in self.state.teachers for p in t.parameters() if p.requires_grad]

    def _build_optimiser(self) -> torch.optim.Optimizer:
        """AdamW with moments of this step's own: older ones belong to a state that the step
        before did not keep."""
        c, named = self.method.config, self.method.trainable("A")
        scaled = [any(f".{part}" in f".{name}" for part in FUSION) for name, _ in named]
        fusion = [p for (_, p), one in zip(named, scaled, strict=True) if one]
        others = [p for (_, p), one in zip(named, scaled, strict=True) if not one] + self.tuned
        groups: list[dict[str, Any]] = [
            {"params": fusion, "lr": c.a_lr * c.ib_mbm_lr_factor},
            {"params": others},
        ]
        return adamw(groups, c.a_lr, c.a_weight_decay)

    def _train(self, position: StepPosition) -> dict[str, float]:
        inputs, method, optimiser = self.inputs, self.method, self.optimiser
        scaler = self.state.scaler if inputs.numerics.mixed else None
        rows_SB = inputs.plan("fusion", position, None, unlabelled=False).rows
        of_folds = self.folds.batches(rows_SB) if self.folds else []
        steps, last = len(rows_SB), method
        if of_folds:
            steps, last = len(of_folds), method.members[of_folds[-1][0]]
        graphs, obstacle = self.state.graphs, inputs.obstacle(banks=True)
        if graphs is not None:
            graphs.without("fusion", "batches of folds differ in size" if of_folds else obstacle)
        method.train()

        def step(i: Index) -> dict[str, Tensor]:
            number, rows = of_folds[int(i)] if of_folds else (0, select(rows_SB, i))
            with inputs.numerics.autocast(inputs.device):
                student = self._student(rows)
                teachers, start = self._teachers(self.tokens.other(rows) if self.tokens else rows)
                terms = method.members[number].teacher_terms(
                    student, teachers, start, inputs.views.labels(rows), position
                )
            total = torch.stack(list(terms.losses.values())).sum()
            clamped = method.clamp_loss(total, position)
            skipped = gradient_step(clamped, optimiser, scaler, clip=method.config.a_clip)
            named = {metrics.LOSS + name: value for name, value in terms.losses.items()}
            return {metrics.LOSS_TOTAL: total} | named | terms.seen | skipped

        stream = (inputs.config.seed, "fusion", "draws", position.epoch)
        plan, stop = [rows for _, rows in of_folds] or list(rows_SB), self.state.stop
        with reading_ahead(self._reads(plan)):
            means = run_steps(self.state.progress, steps, step, stop, stream, graphs=graphs)
        method.eval()
        means |= self._gradients(last)
        for k, teacher in enumerate(self.state.teachers):
            means[metrics.teacher(k, "trainable_requested")] = freezing.requested_fraction(
                teacher, method.teacher_level(position.stage)
            )
            means[metrics.teacher(k, "trainable")] = freezing.moved_fraction(teacher)
        means[metrics.STEP_SECONDS] = means["steps_seconds"] / steps
        images = sum(len(rows) for _, rows in of_folds) if of_folds else rows_SB.numel()
        means[metrics.IMAGES_PER_SECOND] = images / means.pop("steps_seconds")
        return means

    def _reads(self, plan: list[Tensor]) -> list[Reads]:
        """What is read of tables and images for these rows."""
        banks = [] if self.fresh else [self.student, *(t.bank for t in self.inputs.teachers)]
        both = [table for bank in banks for table in (bank.train.logits, bank.train.pooled)]
        pooled = [bank.train.pooled for bank in self.pooled or []]
        found = [Reads(table, plan) for table in (*both, *pooled)]
        return [self.inputs.views.reads(plan), *found]

    def _gradients(self, method: AlternatingMethod) -> dict[str, float]:
        """The weakest gradient of the epoch's last step, of adapters and of the fusion's parts (0
        where one does not learn), and the floor of σ; of the fusion that learned in it."""
        learning = {name for name, _ in method.trainable("A")}
        named = list(method.named_parameters())
        adapters = [(n, p) for n, p in named if n.startswith(ADAPTERS)]
        found = {metrics.ADAPTER_GRAD: 0.0}
        if all(name in learning for name, _ in adapters):
            found = measures.gradient_metric(metrics.ADAPTER_GRAD, adapters, depth=2)
        parts = [(n, p) for n, p in named if not n.startswith((*ADAPTERS, "query_token"))]
        found |= measures.gradient_metric(metrics.FUSION_GRAD, parts, depth=2)
        if method.config.bottleneck:
            found[metrics.SIGMA_FLOOR] = method.fusion.sigma_floor
        return found

    def _student(self, rows: Tensor) -> Outputs:
        """The student of the stage's start: read from its table, or run where views are fresh."""
        if not self.fresh:
            return Outputs(*self.student.train.at(rows))
        with torch.no_grad():
            return outputs(self.frozen_student, self.inputs.views.batch(rows))

    def _teachers(self, rows: Tensor) -> tuple[list[Outputs], list[Tensor] | None]:
        """The teachers' outputs, and their starting logits where their blocks are tuned.

        Tuned teachers are run (BatchNorm in evaluation); the others are read from their banks.
        """
        if self.fresh:
            images = self.inputs.views.batch(rows)
            with torch.no_grad():
                frozen = [outputs(t.model, images) for t in self.inputs.teachers]
        else:
            frozen = [Outputs(*t.bank.train.at(rows)) for t in self.inputs.teachers]
        if not self.state.teachers:
            return frozen, None
        if self.pooled is not None:
            features = [bank.train.pooled[rows].float() for bank in self.pooled]
            pairs = zip(self.state.teachers, features, strict=True)
            live = [Outputs(models.classify(t, pooled), pooled) for t, pooled in pairs]
            return live, [one.logits for one in frozen]
        live = tuned_outputs(self.inputs, self.state, rows)
        return live, [one.logits for one in frozen]

    def _evaluate(self, position: StepPosition) -> dict[str, float]:
        """Synergy accuracy and the information plane on validation; keeps the best state of this
        step."""
        state, labels = self.state, self.inputs.data.val.labels
        teachers = self._val()
        which = self.method.config.synergy_eval_teacher_indices
        fused = synergy_rows(self.method, self.student.val, teachers, which=which)
        accuracy = top1(fused.logits, labels)
        own = {metrics.teacher(k, "top1"): top1(t.logits, labels) for k, t in enumerate(teachers)}
        if not state.a_best or accuracy > state.a_best["top1"]:
            state.a_best = {
                "top1": accuracy,
                "method": snapshot(self.method),
                "teachers": [snapshot(t) for t in state.teachers],
            }
        alpha, old = self.method.config.synergy_ema_alpha, state.synergy_ema
        state.synergy_ema = moving_average(old, accuracy, alpha)
        plane = information(
            self.method,
            self.student.val,
            teachers,
            labels,
            (self.inputs.config.seed, position.epoch),
            which=which,
        )
        return (
            own | {metrics.SYNERGY_TOP1: accuracy, metrics.SYNERGY_EMA: state.synergy_ema} | plane
        )

    def _val(self) -> list[ViewOutputs]:
        """Outputs of the teachers, as they are now, on the validation images; under the placebo of
        tokens the features are of other images."""
        if self.pooled is None:
            found = teacher_val(self.inputs, self.state)
        else:
            banks = reclassified(self.state.teachers, [Bank(b.val, b.val) for b in self.pooled])
            found = [bank.val for bank in banks]
        return placebos.of_validation(self.inputs, self.method, self.stage, found)

    def _finish(self) -> dict[str, float]:
        """Restore the best state, read the gate, measure gains and J."""
        state, labels = self.state, self.inputs.data.val.labels
        self.method.load_state_dict(state.a_best["method"])
        for teacher, weights in zip(state.teachers, state.a_best["teachers"], strict=True):
            teacher.load_state_dict(weights)
        restored = self._read_gate()
        state.a_best, state.a_optimiser, state.adapted = {}, None, None
        if self.pooled is not None:
            state.adapted = reclassified(state.teachers, self.pooled)
        teachers, student, seed = self._val(), self.student.val, self.inputs.config.seed
        val, train = Read(student, teachers, labels), self._some_training_images()
        return {
            metrics.GATE: float(state.gate_open),
            metrics.SYNERGY_RESTORED: restored,
            metrics.SYNERGY_CHANCE: measures.chance(labels),
            **self._gains(teachers, restored),
            **query_and_tokens(self.method, val, train, restored, (seed, self.stage)),
            **objective(self.inputs, self.method, student, teachers),
        }

    @torch.no_grad()
    def _some_training_images(self) -> Read:
        """What the fusion reads of a view of the labelled images, of at most SAMPLE of them."""
        inputs, views = self.inputs, self.inputs.views
        count = len(inputs.data.train.labels)
        image_N = torch.arange(0, count, -(-count // SAMPLE), device=inputs.device)
        parts: list[tuple[Outputs, list[Outputs]]] = []
        for rows in (image_N * views.count).split(BANK_CHUNK):
            with inputs.numerics.autocast(inputs.device):
                read = self.tokens.other(rows) if self.tokens else rows
                parts.append((self._student(rows), self._teachers(read)[0]))

        def joined(each: Sequence[Outputs]) -> ViewOutputs:
            logits, pooled = ([getattr(p, name) for p in each] for name in ("logits", "pooled"))
            return ViewOutputs(torch.cat(logits), torch.cat(pooled))

        students, teachers = zip(*parts, strict=True)
        columns = [joined(column) for column in zip(*teachers, strict=True)]
        share = self.folds.share(image_N * views.count) if self.folds else None
        return Read(joined(students), columns, inputs.data.train.labels[image_N], share)

    def _read_gate(self) -> float:
        """Open or close the gate of the B-Step; give the synergy accuracy of the restored state."""
        state, config = self.state, self.method.config
        restored, smooth = float(state.a_best["top1"]), state.synergy_ema
        reading = smooth if config.gate_on == "ema" and smooth is not None else restored
        state.synergy_top1 = restored
        state.gate_open = reading > 0 and reading >= config.enable_kd_after_syn_acc
        return restored

    def _gains(self, teachers: list[ViewOutputs], restored: float) -> dict[str, float]:
        """Synergy gain over the teachers and their average, as they are now and as loaded."""
        labels, weights = self.inputs.data.val.labels, self.method.config.teacher_weights
        accuracies, average = unfused(teachers, weights, labels)
        values = {
            metrics.SYNERGY_GAIN: restored - max(accuracies),
            metrics.SYNERGY_GAIN_AVERAGE: restored - average,
        }
        if self.state.teachers:
            values |= {
                metrics.teacher(k, "top1_after"): value for k, value in enumerate(accuracies)
            }
            loaded = [one.bank.val for one in self.inputs.teachers]
            accuracies, average = unfused(loaded, weights, labels)
        values[metrics.SYNERGY_GAIN_ORIGINAL] = restored - max(accuracies)
        values[metrics.SYNERGY_GAIN_AVERAGE_ORIGINAL] = restored - average
        return values
