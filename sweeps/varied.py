"""Options that the command line varies: they replace those of a study, or add to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.cli.console import say
from pipeline.config import ConfigError
from pipeline.config.sweep import values_of
from sweeps.study import OWN, Params, Study


def sweeps_of(
    overrides: list[str], space: dict[str, Any]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """(options that vary, as in method.ib_beta=0,1e-3 or method.tau=interval(1,8), which replace
    or add to those of the study; the other overrides; errors)."""
    found, others, errors = dict[str, Any](), [], []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key in space and value.startswith("["):
            text = f"{key}={value.strip('[]')}"
        try:
            several = values_of(text)
        except ConfigError as error:
            errors += error.errors
            continue
        if several is None or key == "seed":
            others.append(text)
        else:
            found[key] = several
    return found, others, errors


def first_values(added: dict[str, Any]) -> Params:
    """The values of added options in configurations that are tried first: the first of a list, of
    an interval that of the base."""
    return {key: value[0] if isinstance(value, list) else OWN for key, value in added.items()}


def _allows(values: Any, value: Any) -> bool:
    """Whether a list or a range of a space has a value."""
    if isinstance(values, list):
        return value in values
    return isinstance(value, int | float) and values["low"] <= value <= values["high"]


def within(study: Study, several: dict[str, Any]) -> Study:
    """The study without those configurations to try first that are outside the lists and ranges
    given on the command line; they are printed."""
    if study.sampler == "grid":
        return study
    kept = []
    for entry, params in zip(study.enqueue, study.known_params, strict=True):
        common = sorted(several.keys() & params.keys())
        outside = [key for key in common if not _allows(several[key], params[key])]
        if outside:
            left = ", ".join(f"{key}={params[key]}" for key in outside)
            say(f"left out {left}: first in the file of the study, not in what was given")
        else:
            kept.append(entry)
    return replace(study, enqueue=tuple(kept))
