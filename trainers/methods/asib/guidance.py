"""Targets and weights of ASIB's B-Step: a target and a weight for each image, and kept samples.

Shapes: B examples, L of them, the first, with a label, C classes, K teachers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trainers import losses, metrics, targets
from trainers.methods.asib.config import AsibConfig
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.mixing import Mix, Shown, shown
from trainers.options import span
from trainers.schedules import ramp

TARGET, OMEGA = "target", "omega"  # among the targets of a batch


class Guidance(NamedTuple):
    """target [B, C]: probabilities at the temperature; omega [B]: weights; what was seen;
    chosen [B]: whether the target is the fusion's (None: of none)."""

    target: Tensor
    omega: Tensor
    seen: dict[str, Tensor]
    chosen: Tensor | None = None

    @classmethod
    def of(cls, named: dict[str, Tensor]) -> Guidance:
        """From what `named` gave."""
        seen = dict(named)
        return cls(seen.pop(TARGET), seen.pop(OMEGA), seen)

    def named(self) -> dict[str, Tensor]:
        """Target, weights and what was seen by name."""
        return {TARGET: self.target, OMEGA: self.omega} | self.seen

    def where_fused(self, donor: Guidance) -> Guidance:
        """This one, but where the fusion is the target of the donor: there target and weight are
        the donor's, so that nothing of them has seen this image or its label."""
        assert donor.chosen is not None
        target = torch.where(donor.chosen[:, None], donor.target, self.target)
        omega_B, seen = torch.where(donor.chosen, donor.omega, self.omega), self.seen | donor.seen
        if metrics.KD_WEIGHT_SPREAD in seen:
            seen[metrics.KD_WEIGHT_SPREAD] = _spread(omega_B)
        return Guidance(target, omega_B, seen, donor.chosen)

    def of_batch(self, at_N: Tensor | None, count: int) -> Guidance:
        """Of a whole batch; images that are not among `at` have no target and no weight."""
        if at_N is None:
            return self
        target_BC = self.target.new_zeros(count, self.target.shape[1])
        omega_B = self.omega.new_zeros(count)
        target_BC[at_N], omega_B[at_N] = self.target, self.omega
        return self._replace(target=target_BC, omega=omega_B)


def guidance(
    c: AsibConfig,
    teacher_outputs: TeacherOutputs,
    labels_L: Tensor,
    mix: Mix,
    position: StepPosition,
    unlabelled: int = 0,
) -> Guidance:
    """Targets and weights of the images that `teacher_outputs` describes (clean source images, or
    mixed as `mix` says; some of the batch, `at`), the last of which are `unlabelled`: of these the
    fusion is the target wherever there are synergy logits. Without them (closed gate) it is the
    teachers' average."""
    known = teacher_outputs.teachers.shape[1] - unlabelled
    at = None if teacher_outputs.at is None else teacher_outputs.at[:known]
    labels = shown(labels_L, mix).at(at)
    average = base_logits(c, teacher_outputs, position)
    seen = {metrics.DISAGREEMENT: targets.disagreement(teacher_outputs.teachers)}
    logits, target, chosen = average, torch.softmax(average / c.tau, -1), None
    if teacher_outputs.synergy is not None:
        synergy = teacher_outputs.synergy
        chosen = torch.ones(len(synergy), dtype=torch.bool, device=synergy.device)
        if c.kd_target == "auto":
            better_L = targets.prefer_synergy(synergy[:known], average[:known], labels)
            chosen = targets.all_of_batch(better_L, len(synergy), True)
        routed = torch.softmax(synergy * (c.target_scale() / c.tau_syn), -1)
        share = c.kd_ens_alpha * (1 - _warmed_up(c, position))
        if share > 0:
            routed = torch.lerp(routed, target, share)
        target = torch.where(chosen[:, None], routed, target)
        logits = torch.where(chosen[:, None], teacher_outputs.synergy, average)
        seen[metrics.SYNERGY_SHARE] = chosen.float().mean()
    omega_B = torch.ones_like(logits[:, 0])
    factors = _weights(c, teacher_outputs, logits, chosen, labels)
    for factor_B in factors:
        omega_B = omega_B * factor_B
    if factors:
        seen[metrics.KD_WEIGHT_SPREAD] = _spread(omega_B)
    return Guidance(target, omega_B, seen, chosen)


def base_logits(c: AsibConfig, teacher_outputs: TeacherOutputs, position: StepPosition) -> Tensor:
    """The teachers' logits without the fusion, [B, C]."""
    if c.kd_target == "teacher":
        found = teacher_outputs.teachers[c.teacher_index]
    elif c.kd_target == "self":
        (found,) = teacher_outputs.teachers
    elif c.kd_target == "stack":
        assert teacher_outputs.stack is not None
        found = teacher_outputs.stack
    elif c.kd_target == "weighted_conf":
        share_KB = targets.confidence_shares(teacher_outputs.teachers, c.tau_gate)
        found = targets.weighted_logits(teacher_outputs.teachers, share_KB)
    else:
        found = targets.average_logits(
            teacher_outputs.teachers, _teacher_weights(c, teacher_outputs, position)
        )
    if teacher_outputs.ema is not None:
        found = (found + c.ema_weight * teacher_outputs.ema) / (1 + c.ema_weight)
    return found


def kept_samples(
    c: AsibConfig, student_BC: Tensor, labels_L: Tensor, mix: Mix
) -> tuple[Tensor, Tensor]:
    """Of the sample gate: (which samples are distilled [B] 0/1 float, by how much their sum is
    divided).

    Kept are samples whose probability of the label is below the threshold, at least
    `kd_sample_min_ratio` and at most `kd_sample_max_ratio` of those with a label, the hardest
    first; and all samples without a label.
    """
    count, known = len(student_BC), len(labels_L)
    own = _label_probability(student_BC[:known].detach(), shown(labels_L, mix))
    low, high = (math.ceil(r * known) for r in (c.kd_sample_min_ratio, c.kd_sample_max_ratio))
    number = (own < c.kd_sample_thr).sum().clamp(low, high)
    rank = torch.empty_like(labels_L)
    rank[own.argsort(stable=True)] = torch.arange(known, device=rank.device)
    kept = targets.all_of_batch((rank < number).float(), count, 1.0)
    return kept, kept.sum().clamp(min=1) if c.kd_sample_reweight else torch.tensor(float(count))


def needed_images(c: AsibConfig, student_BC: Tensor, labels_L: Tensor, mix: Mix) -> Tensor | None:
    """Which images teachers have to see for the samples that can be kept (None: all of the batch).

    Their number depends on the configuration alone, so that nothing waits for a GPU.
    """
    known = len(labels_L)
    most = math.ceil(c.kd_sample_max_ratio * known)
    sources = mix.partner is not None and c.target_view == "two_view"
    if not c.kd_sample_gate or most * (1 + sources) >= known:
        return None
    own = _label_probability(student_BC[:known].detach(), shown(labels_L, mix))
    hardest = own.argsort(stable=True)[: max(1, most)]
    found = [hardest]
    if mix.partner is not None and sources:
        found.append(mix.partner[hardest])
    others = torch.arange(known, len(student_BC), device=hardest.device)
    return torch.cat([*found, others])


def _weights(
    c: AsibConfig,
    teacher_outputs: TeacherOutputs,
    logits_BC: Tensor,
    chosen_B: Tensor | None,
    labels: Shown,
) -> list[Tensor]:
    """The weights that are on, [B] each; those that need a label are 1 where there is none."""
    found = []
    if c.kd_uncertainty_weight > 0:
        found.append(
            targets.uncertainty_weight(logits_BC, c.kd_uncertainty_weight, c.kd_uncertainty_min)
        )
    if chosen_B is not None and teacher_outputs.certainty is not None:
        sure_B = targets.certainty_weight(teacher_outputs.certainty, c.min_cw, c.max_cw)
        found.append(torch.where(chosen_B, sure_B, 1.0))
    if (c.disagree_lambda_high, c.disagree_lambda_low) != (1.0, 1.0):
        high, low, mode = c.disagree_lambda_high, c.disagree_lambda_low, c.disagree_mode

        def apart(label_N: Tensor) -> Tensor:
            some_KNC = teacher_outputs.teachers[:, : len(label_N)]
            return torch.where(targets.apart(some_KNC, label_N, mode), high, low)

        if mode == "both_wrong":
            found.append(targets.all_of_batch(labels.over(apart), len(logits_BC), 1.0))
        else:  # no label enters
            found.append(apart(logits_BC[:, 0]))
    if c.kd_label_guard:
        own_L = _label_probability(logits_BC[: len(labels.first_B)], labels)
        own_L = own_L.clamp(min=c.kd_correct_min)
        found.append(targets.all_of_batch(own_L, len(logits_BC), 1.0))
    return found


def _label_probability(logits_BC: Tensor, labels: Shown) -> Tensor:
    p = torch.softmax(losses.wide(logits_BC), -1)
    return labels.over(lambda label_B: p.gather(1, label_B[:, None])[:, 0])


def _spread(omega_B: Tensor) -> Tensor:
    return omega_B.std(correction=0) / omega_B.mean().clamp_min(1e-12)


def _teacher_weights(
    c: AsibConfig, teacher_outputs: TeacherOutputs, position: StepPosition
) -> list[float] | None:
    """Weights of the average at this moment: the second teacher's falls where requested."""
    if c.teacher2_weight_decay_len == 0 or len(teacher_outputs.teachers) < 2:
        return c.teacher_weights
    start = span(c.teacher2_weight_decay_start, position.total)
    length = span(c.teacher2_weight_decay_len, position.total)
    left = 1 - min(1.0, max(0.0, (position.epoch - start) / length))
    weights = list(c.teacher_weights or [1.0] * len(teacher_outputs.teachers))
    weights[1] *= left
    return weights


def _warmed_up(c: AsibConfig, position: StepPosition) -> float:
    return ramp(position.epoch, span(c.kd_warmup_epochs, position.total))
