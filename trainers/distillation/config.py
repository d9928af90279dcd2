"""Configuration of a distillation run: exactly what can change its student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainers import models
from trainers.bank_codes import BankConfig
from trainers.data import DataConfig
from trainers.mixing import MixConfig
from trainers.numerics import Numerics
from trainers.optim import StudentOptimConfig
from trainers.options import When, option
from trainers.schedules import even_split


@dataclass
class StudentConfig:
    """The network that is distilled into."""

    model: str = option("resnet8", "architecture", choices=models.names, free=models.TIMM_PREFIX)
    pretrained: bool = option(False, "start from published weights")


_adapts = When("there is an A-Step", lambda b: b.adapt_epochs > 0)
_matched = When("`budget.matched_to` is set", lambda b: b.matched_to is not None)


@dataclass
class BudgetConfig:
    """Epochs of a run: the same for every rung and method of a bench."""

    student_epochs: int = option(80, "B-Step epochs of a run, over all stages", low=1)
    student_epochs_per_stage: list[int] | None = option(
        None,
        "B-Step epochs of each stage, student_epochs in all (null: even shares)",
        low=1,
        added=True,
    )
    adapt_epochs: int = option(
        32, "A-Step epochs of a run, shared among the stages", low=1, when=_adapts
    )
    kd_warmup_epochs: float = option(
        0.125,
        "KD warm-up of methods that have one, the default of method.kd_warmup_epochs",
        low=0,
        identity=False,
    )
    kd_cooldown_epochs: float = option(
        0.25,
        "KD cooldown of methods that have one, the default of method.kd_cooldown_epochs",
        low=0,
        identity=False,
    )
    matched_to: str | None = option(
        None,
        "rung whose time a CE run is given: student_epochs grow by the ratio of both times",
        when=_matched,
    )
    matched_with: list[str] = option(
        [], "further overrides of the matched rung's run: ['optim.lr=4e-3']", when=_matched
    )

    def stage_epochs(self, stages: int) -> list[int]:
        """B-Step epochs of each stage."""
        return self.student_epochs_per_stage or even_split(self.student_epochs, stages)


@dataclass
class DistillConfig:
    """Everything that can change a distilled student, besides teachers and data digest."""

    student: StudentConfig
    method: Any
    data: DataConfig
    mix: MixConfig
    optim: StudentOptimConfig
    budget: BudgetConfig
    numerics: Numerics
    select: str = "best"
    seed: int = 0
    bank: BankConfig = option(BankConfig, "what view banks keep", added=True)
