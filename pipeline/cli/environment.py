"""Environment shortcuts: TEACHER_PAIR, STUDENT, METHOD, SEED stand for options of the command.

They become overrides that are printed and logged like those that were typed; what is typed wins.
DRY_RUN=1 asks for the plan alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import ConfigError
from pipeline.config.fields import nearest
from pipeline.config.groups import options_of
from trainers import models

SHORTCUTS = ("TEACHER_PAIR", "STUDENT", "METHOD", "SEED")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


def with_shortcuts(overrides: list[str], environment: Mapping[str, str]) -> list[str]:
    """The overrides with those of the environment in front, without what was typed anyway.

    Raises:
        ConfigError: a shortcut that names nothing.
    """
    typed = {text.lstrip("+").partition("=")[0].partition("@")[0] for text in overrides}
    found: list[str] = []
    mistakes: list[str] = []
    for name in SHORTCUTS:
        if value := environment.get(name, "").strip():
            found += _override(name, value, typed, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return [*found, *overrides]


def dry_run(environment: Mapping[str, str]) -> bool:
    """Whether DRY_RUN asks for the plan alone.

    Raises:
        ConfigError: neither yes nor no.
    """
    value = environment.get("DRY_RUN", "").strip().lower()
    if value not in (*_YES, *_NO):
        raise ConfigError([f"DRY_RUN={value}: not 1 or 0"])
    return value in _YES


def _override(name: str, value: str, typed: set[str], mistakes: list[str]) -> list[str]:
    if name == "SEED":
        if not value.isdecimal():
            mistakes.append(f"SEED={value}: not a whole number from 0")
        return [] if "seed" in typed else [f"seed={value}"]
    if name == "STUDENT":
        key = "student" if value in options_of("student") else "student.model"
        _check_model(name, value, options_of("student"), mistakes)
        return [] if typed & {"student", "student.model"} else [f"{key}={value}"]
    if name == "METHOD":
        group = next((k for k in ("cfg", "method") if value in options_of(k)), None)
        if group is None:
            allowed = [*options_of("cfg"), *options_of("method")]
            mistakes.append(f"METHOD={value}: unknown{nearest(value, allowed, show_all=True)}")
        return [] if typed & {"cfg", "method"} else [f"{group}={value}"]
    teachers = [part.strip() for part in value.replace("+", ",").split(",")]
    if len(teachers) != 2 or not all(teachers):
        mistakes.append(f"TEACHER_PAIR={value}: two names with a comma, as in resnet20,resnet56")
        return []
    for one in teachers:
        _check_model(name, one, options_of("teacher"), mistakes)
    return [
        f"teacher@teacher.{k}={one}" if one in options_of("teacher") else f"teacher.{k}.model={one}"
        for k, one in enumerate(teachers)
        if not typed & {"teacher", f"teacher.{k}.model"}
    ]


def _check_model(name: str, value: str, group: list[str], mistakes: list[str]) -> None:
    if value not in group and not models.exists(value):
        known = [*models.names(), f"{models.TIMM_PREFIX}<name>"]
        mistakes.append(f"{name}: {value}: unknown{nearest(value, known, show_all=True)}")
