"""Environment shortcuts: TEACHER_PAIR, STUDENT, METHOD and SEED set options of a command.

They become overrides, which are printed and logged; an option on the command line wins. So does
the store of a project that `mlflow run` has copied. DRY_RUN=1 prints the plan only.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from analysis.suggest import nearest
from pipeline.config import ConfigError
from pipeline.config.groups import options_of
from trainers import models

SHORTCUTS = ("TEACHER_PAIR", "STUDENT", "METHOD", "SEED")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


def with_shortcuts(overrides: list[str], environment: Mapping[str, str]) -> list[str]:
    """The overrides, preceded by those of the environment that they do not set themselves.

    Raises:
        ConfigError: a shortcut with an unknown or unreadable value.
    """
    given = {text.lstrip("+").partition("=")[0].partition("@")[0] for text in overrides}
    found: list[str] = []
    errors: list[str] = []
    for name in SHORTCUTS:
        if value := environment.get(name, "").strip():
            found += _override(name, value, given, errors)
    if errors:
        raise ConfigError(errors)
    return [*found, *overrides]


def with_lasting_store(
    overrides: list[str], environment: Mapping[str, str], folder: Path
) -> list[str]:
    """The overrides, preceded by a store in the user's data folder where `folder` is a copy that
    `mlflow run` has made of an archive or of a git address: it makes another for each command."""
    temporary = Path(tempfile.gettempdir()).resolve()
    copied = folder.parent == temporary and re.fullmatch(r"tmp[a-z0-9_]{8}", folder.name)
    given = any(text.lstrip("+").startswith("runtime.store=") for text in overrides)
    if not copied or given or "MLFLOW_RUN_ID" not in environment:
        return overrides
    data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return [f"runtime.store={Path(data) / 'asib' / 'store'}", *overrides]


def dry_run(environment: Mapping[str, str]) -> bool:
    """Whether DRY_RUN requests the plan only.

    Raises:
        ConfigError: neither yes nor no.
    """
    value = environment.get("DRY_RUN", "").strip().lower()
    if value not in (*_YES, *_NO):
        raise ConfigError([f"DRY_RUN={value}: not 1 or 0"])
    return value in _YES


def _override(name: str, value: str, given: set[str], errors: list[str]) -> list[str]:
    if name == "SEED":
        if not value.isdecimal():
            errors.append(f"SEED={value}: not a whole number from 0")
        return [] if "seed" in given else [f"seed={value}"]
    if name == "STUDENT":
        key = "student" if value in options_of("student") else "student.model"
        _check_model(name, value, options_of("student"), errors)
        return [] if given & {"student", "student.model"} else [f"{key}={value}"]
    if name == "METHOD":
        group = next((k for k in ("cfg", "method") if value in options_of(k)), None)
        if group is None:
            allowed = [*options_of("cfg"), *options_of("method")]
            errors.append(f"METHOD={value}: unknown{nearest(value, allowed, show_all=True)}")
        return [] if given & {"cfg", "method"} else [f"{group}={value}"]
    teachers = [part.strip() for part in value.replace("+", ",").split(",")]
    if len(teachers) != 2 or not all(teachers):
        errors.append(f"TEACHER_PAIR={value}: two names with a comma, as in resnet20,resnet56")
        return []
    for one in teachers:
        _check_model(name, one, options_of("teacher"), errors)
    return [
        f"teacher@teacher.{k}={one}" if one in options_of("teacher") else f"teacher.{k}.model={one}"
        for k, one in enumerate(teachers)
        if not given & {"teacher", f"teacher.{k}.model"}
    ]


def _check_model(name: str, value: str, group: list[str], errors: list[str]) -> None:
    if value not in group and not models.exists(value):
        known = [*models.names(), f"{models.TIMM_PREFIX}<name>"]
        errors.append(f"{name}: {value}: unknown{nearest(value, known, show_all=True)}")
