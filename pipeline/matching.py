"""CE_matched: training without teachers, given the time that another rung took.

The epochs follow from the measured time of two finished runs, so a configuration that asks for
them (`budget.matched_to`) is not yet a stage: it becomes one when both runs are there.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import Config, compose

CONTROL = "CE"


def standards(config: Config, overrides: list[str]) -> list[Config]:
    """The rung whose time is given and the plain control, as the same command composes them."""
    rest = [o for o in overrides if o.partition("=")[0] not in ("cfg", "budget.matched_to")]
    return [compose([*rest, f"cfg={rung}"]) for rung in (config.budget.matched_to, CONTROL)]


def resolved(config: Config, rung_s: float, control_s: float) -> Config:
    """The configuration with as many epochs as fit into the rung's seconds, at least one."""
    epochs = max(1, round(config.budget.student_epochs * rung_s / control_s))
    return replace(config, budget=replace(config.budget, student_epochs=epochs, matched_to=None))
