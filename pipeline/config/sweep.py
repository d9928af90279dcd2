"""Values of an override that stands for several: Hydra's grammar of sweeps."""

from __future__ import annotations

import itertools
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString
from hydra.errors import HydraException

from pipeline.config.errors import ConfigError
from pipeline.config.groups import GROUPS, options_of
from pipeline.config.overrides import is_literal, parse_override


def expand(overrides: list[str]) -> list[tuple[str, ...]]:
    """Every combination of the values that Hydra's grammar sweeps: `a,b`, `range(1,4)`,
    `choice(a,b)`, `glob(L*)`; in the order of nested loops, the first override outermost.

    Raises:
        ConfigError: a pattern that fits no name.
    """
    return list(itertools.product(*(_texts(text) for text in overrides)))


def _texts(text: str) -> list[str]:
    parsed = parsed_sweep(text)
    if parsed is None or not parsed.is_discrete_sweep():
        return [text]
    key = text.partition("=")[0]
    if isinstance(pattern := parsed.value(), Glob):
        return [f"{key}={name}" for name in _matching(text, pattern)]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def values_of(text: str) -> list[Any] | dict[str, Any] | None:
    """The values of a sweep as a study has them: a list, or {low, high, log} of an interval; None
    of an override with one value.

    Raises:
        ConfigError: a pattern that fits no name.
    """
    parsed = parsed_sweep(text)
    if parsed is None:
        return None
    value = parsed.value()
    if isinstance(value, Glob):
        return list(_matching(text, value))
    if isinstance(value, IntervalSweep):
        return {"low": value.start, "high": value.end} | (
            {"log": True} if "log" in value.tags else {}
        )
    return [one.text if isinstance(one, QuotedString) else one for one in parsed.sweep_iterator()]


def parsed_sweep(text: str) -> Override | None:
    """The override, if it stands for several values. Free text and paths never do."""
    if is_literal(text.partition("=")[0]):
        return None
    try:
        parsed = parse_override(text)
    except HydraException:
        return None  # composing reports what is wrong
    return parsed if parsed.is_sweep_override() else None


def _matching(text: str, pattern: Glob) -> list[str]:
    key = text.partition("=")[0].lstrip("+")
    group = key.partition("@")[0]
    if group not in GROUPS:
        raise ConfigError([f"{text}: glob() chooses among the names of a group, such as cfg"])
    if found := pattern.filter(options_of(group)):
        return found
    raise ConfigError([f"{text}: fits none of {', '.join(options_of(group))}"])
