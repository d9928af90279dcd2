"""CE_matched: training without teachers, given the time that another rung took.

The epochs follow from the measured time of two finished runs, so a configuration that requests
them (`budget.matched_to`) is not yet a stage: it becomes one when both runs are finished.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import Config, compose
from pipeline.identity import CONTROL

_OWN = ("cfg", "budget.matched_to", "budget.matched_with")  # of CE_matched alone


def standards(config: Config, overrides: list[str]) -> list[Config]:
    """The rung whose time is given, with its own recipe, and the plain control, as the same
    command composes them.

    Raises:
        ConfigError: the rung does not take `budget.matched_with`.
    """
    return [compose(one) for one in commands(config, overrides)]


def commands(config: Config, overrides: list[str]) -> list[list[str]]:
    """The command lines of both; of a configuration that follows from no other runs none."""
    if config.budget.matched_to is None:
        return []
    rest = [o for o in overrides if o.partition("=")[0] not in _OWN]
    with_recipe = [*rest, f"cfg={config.budget.matched_to}", *config.budget.matched_with]
    return [with_recipe, [*rest, f"cfg={CONTROL}"]]


def resolved(config: Config, rung_s: float, control_s: float) -> Config:
    """The configuration with as many epochs as fit into the rung's seconds, at least one."""
    epochs = max(1, round(config.budget.student_epochs * rung_s / control_s))
    budget = replace(config.budget, student_epochs=epochs, matched_to=None, matched_with=[])
    return replace(config, budget=budget)
