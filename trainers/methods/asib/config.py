"""Configuration of ASIB: what follows from its options, and what contradicts what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from trainers.methods.asib import levels
from trainers.methods.asib.rung_options import RungOptions
from trainers.methods.asib.switches import disagrees, fades, fused, taught
from trainers.methods.base import MethodConfig
from trainers.options import default_of, span
from trainers.schedules import even_split, kd_weight

# d_tok of the method: narrow students get narrow tokens (and a fusion module that costs little).
TOKEN_DIM, SMALL_TOKEN_DIM = 512, 256
WIDE_ENOUGH = 1280  # pooled width above which a student gets the full token width
LEVELS = ("student_levels", "teacher_levels")


@dataclass
class AsibConfig(RungOptions):
    """Options of ASIB and what follows from them."""

    def widths(self, student_dim: int) -> tuple[int, int]:
        """(token width, latent width) for a student of that pooled width."""
        token = self.token_dim or default_token_dim(student_dim)
        return token, self.latent_dim or token

    def target_scale(self) -> float:
        """Scale of synergy logits as a target; residual ones start as the average, unscaled."""
        return 1.0 if self.residual else self.synergy_logit_scale

    def a_step_epochs(self, budget: int) -> list[int]:
        """Epochs of each A-Step: the budget shared among the stages (none without fusion)."""
        return even_split(budget, self.num_stages) if fused(self) else []

    def reads_teachers(self) -> bool:
        return taught(self) and self.kd_target != "self"

    def own_teacher(self) -> MethodConfig | None:
        if self.kd_target != "self":
            return None
        # The weight of labels next to a teacher may be 0. Labels alone need one: that of CE.
        return replace(self, kd_target="none", ce_alpha=type(self).ce_alpha)

    def uses_gate(self) -> bool:
        """Whether a synergy accuracy is measured and read."""
        return fused(self)

    def reads_validation(self) -> str:
        return "method.kd_target=stack" if self.kd_target == "stack" else ""

    def reads_banks(self) -> str:
        return self.reads_validation()

    def stage_count(self) -> int:
        return self.num_stages if fused(self) else 1

    def headline(self) -> dict[str, float | str]:
        found: dict[str, float | str] = {"kd_target": self.kd_target, "ce": self.ce_alpha}
        if taught(self):
            found["kd"] = self.kd_alpha
        if fused(self):
            found["ib_beta"] = self.ib_beta if self.bottleneck else 0.0
        return found

    def levels(self, whose: str) -> list[int]:
        return self.student_levels if whose == "student" else self.teacher_levels

    def kd_weight(self, epoch: int, total: int) -> float:
        """kd_eff of a B-Step epoch of `total`."""
        if not taught(self):
            return 0.0
        warmup, cool = span(self.kd_warmup_epochs, total), span(self.kd_cooldown_epochs, total)
        return kd_weight(epoch, total, alpha=self.kd_alpha, warmup=warmup, cool=cool)

    def in_key(
        self, kept: dict[str, Any], student_dim: int | None, teachers: int
    ) -> dict[str, Any]:
        dead = self.without_effect()
        same: dict[str, Any] = {name: default_of(type(self), name) for name in dead}
        if self.teacher_weights is not None:
            shares = [weight / sum(self.teacher_weights) for weight in self.teacher_weights]
            same["teacher_weights"] = shares if len(set(shares)) > 1 else None
        if student_dim is not None:
            token, latent = self.widths(student_dim)
            same["token_dim"] = None if token == default_token_dim(student_dim) else token
            same["latent_dim"] = None if latent == token else latent
        if self.placebo == "image_by_label":
            same["placebo"] = "synergy"  # its name in older runs
        which = sorted(self.synergy_eval_teacher_indices or [])
        same["synergy_eval_teacher_indices"] = which
        found = {name: same.get(name, value) for name, value in kept.items()}
        if which == [*range(teachers)]:
            found.pop("synergy_eval_teacher_indices", None)
        return found

    def without_effect(self) -> list[str]:
        dead = {
            "kd_uncertainty_min": self.kd_uncertainty_weight == 0,
            "ib_beta_warmup_epochs": self.ib_beta == 0,
            "cccp_ramp_epochs": self.cccp_alpha == 0,
            "loss_clamp_max": self.loss_clamp == "none",
            "loss_clamp_warmup_epochs": self.loss_clamp == "none",
            "min_std": 2 * math.log(self.min_std) <= -self.logvar_clip,
            "disagree_mode": self.disagree_lambda_high == self.disagree_lambda_low,
        }
        return [name for name, holds in dead.items() if holds]

    def corrected(self, *, fresh: bool, mixed: bool) -> list[str]:
        live = fresh or (fused(self) and self.query == "live")
        both = self.disagree_mode == "both_wrong" and self.target_view == "same" and mixed
        found = {
            "placebo of live outputs": live and self.placebo != "none",
            "both labels of mixed images": both and disagrees(self),
            "certainty of kept samples": self._spares(live) and fused(self) and self.bottleneck,
            "loss_clamp_warmup_epochs": fused(self) and 0 < self.loss_clamp_warmup_epochs < 1,
        }
        return [name for name, holds in found.items() if holds]

    def settled(self, *, specialised: bool) -> AsibConfig:
        """With the levels of all stages, listed stage by stage."""
        starts, stages = self.level_starts, self.stage_count()
        return replace(
            self,
            level_starts=None,
            student_levels=levels.of_stages(self.student_levels, starts, stages) or [-1],
            teacher_levels=levels.of_stages(self.teacher_levels, starts, stages) or [-1],
        )

    def teacher_numbers(self) -> dict[str, list[int]]:
        return {
            "teacher_index": [self.teacher_index] if self.kd_target == "teacher" else [],
            "synergy_eval_teacher_indices": self.synergy_eval_teacher_indices or [],
        }

    def _level_errors(self) -> list[str]:
        """Levels that do not fit the stages; those of teachers that do not adapt are not read."""
        read = LEVELS if fused(self) and self.adapt == "backbone" else LEVELS[:1]
        starts, stages = self.level_starts, self.stage_count()
        return [
            error
            for name in read
            for error in levels.errors(f"method.{name}", getattr(self, name), starts, stages)
        ]

    def _spares(self, live: bool) -> bool:
        """Whether the sample gate has networks run on some images only."""
        live = live or self.target_view == "same" or self.ema_weight > 0
        return live and self.kd_sample_gate and self.kd_sample_max_ratio < 1

    def errors(self, adapt_epochs: int, student_dim: int | None, teachers: int) -> list[str]:
        found = super().errors(adapt_epochs, student_dim, teachers) + self.switch_errors()
        found += levels.start_errors(self.level_starts) or self._level_errors()
        weights = self.teacher_weights
        if taught(self) and weights is not None and not sum(weights) > 0:
            found.append(f"method.teacher_weights={weights}: their sum must be above 0")
        if taught(self) and weights is not None and len(weights) != teachers:
            found.append(f"method.teacher_weights: {len(weights)} for {teachers} teachers")
        elif fades(self) and weights is not None and sum(weights) == weights[1]:
            found.append(
                f"method.teacher_weights={weights}: teacher 1 alone has a weight, and "
                f"method.teacher2_weight_decay_len={self.teacher2_weight_decay_len:g} takes it away"
            )
        found += self._placebo_errors() + (
            self._query_errors() + self._fold_errors() if fused(self) else []
        )
        if self.ce_alpha == 0 and (not taught(self) or self.kd_alpha == 0):
            found.append("method.ce_alpha=0: the student learns from nothing else")
        return found + (self._fusion_errors(adapt_epochs, student_dim) if fused(self) else [])

    def _fusion_errors(self, adapt_epochs: int, student_dim: int | None) -> list[str]:
        """Contradictions between widths, lengths and bounds of the fusion."""
        found = []
        if self.bottleneck and 2 * math.log(self.min_std) > self.logvar_clip:
            found.append(
                f"method.min_std={self.min_std:g} is above the largest standard deviation that "
                f"method.logvar_clip={self.logvar_clip:g} allows, exp(logvar_clip / 2)"
            )
        shortest = min(self.a_step_epochs(adapt_epochs))
        alone = round(span(self.synergy_only_epochs, shortest))
        if alone >= shortest:
            found.append(
                f"method.synergy_only_epochs={self.synergy_only_epochs:g} leaves nothing of an "
                f"A-Step of {shortest} epochs (budget.adapt_epochs={adapt_epochs} over "
                f"method.num_stages={self.num_stages}): the bottleneck would never train"
            )
        latent = self.latent_dim or self.token_dim
        if student_dim is not None:
            token, latent = self.widths(student_dim)
        else:
            token = self.token_dim or self.latent_dim or 0
        for name in ("w_feat", "feat_kd_alpha"):
            if getattr(self, name) > 0 and token != latent:
                found.append(
                    f"method.{name}={getattr(self, name):g} compares the student's query with the "
                    f"latent: method.latent_dim={latent} must equal method.token_dim={token}"
                )
        if latent is not None and latent % self.heads:
            found.append(
                f"method.latent_dim={latent} is not a multiple of method.heads={self.heads}"
            )
        return found

    def _query_errors(self) -> list[str]:
        """Terms of a query that is not read, and an average of teachers without a weight."""
        found = [
            f"method.{name}={getattr(self, name):g} compares the student's query with the latent: "
            "method.query=none has none; give stage"
            for name in ("w_feat", "feat_kd_alpha")
            if self.query == "none" and getattr(self, name) > 0
        ]
        some, weights = self.synergy_eval_teacher_indices or [], self.teacher_weights
        known = some and weights is not None and max(some) < len(weights)
        if self.residual and known and weights and not sum(weights[k] for k in some) > 0:
            found.append(
                f"method.synergy_eval_teacher_indices={some}: method.residual starts from their "
                f"average, and method.teacher_weights={weights} gives them no weight"
            )
        return found

    def _fold_errors(self) -> list[str]:
        """What is of all images, and so leaves no fold out."""
        clashes = {
            "query=live": self.query == "live",
            "adapt=backbone": self.adapt == "backbone",
            "target_view=same": self.target_view == "same",
            f"feat_kd_alpha={self.feat_kd_alpha:g}": self.feat_kd_alpha > 0,
        }
        found = [f"method.{name}" for name, holds in clashes.items() if holds]
        if self.folds == 1 or not found:
            return []
        return [
            f"method.folds={self.folds} does not go with {' and '.join(found)}: live queries, "
            "mixed images, adapted teachers and targets of features leave no fold out"
        ]

    def _placebo_errors(self) -> list[str]:
        """Placebos that would take nothing away."""
        kind, target = self.placebo, f"method.kd_target={self.kd_target}"
        if kind == "none":
            return []
        found = []
        if kind == "teachers" and fused(self):
            found.append(
                f"method.placebo=teachers: the fusion of {target} reads features, not logits; give "
                "tokens, image or class"
            )
        elif kind == "teachers" and self.kd_target == "stack":
            found.append(f"method.placebo=teachers: {target} reads features, not logits")
        elif not taught(self) or (kind != "teachers" and not fused(self)):
            found.append(f"method.placebo={kind}: {target} has no such information")
        if kind == "image_by_label" and self.kd_target == "synergy":
            found.append(f"method.placebo={kind}: {target} does not route by labels; give image")
        if kind == "tokens" and self.residual:
            found.append(
                "method.placebo=tokens takes the features away, and method.residual reads the "
                "logits too; give image or class"
            )
        if self.target_view == "same":
            found.append(
                f"method.placebo={kind} needs method.target_view two_view or clean, not same"
            )
        return found


def default_token_dim(student_dim: int) -> int:
    """Token width of the fusion module for a student of that pooled width."""
    return TOKEN_DIM if student_dim > WIDE_ENOUGH else SMALL_TOKEN_DIM
