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
from typing import Any

from analysis.suggest import nearest
from pipeline.config import ConfigError
from pipeline.config.groups import OWN, options_of
from pipeline.config.old_names import new_name

SHORTCUTS = ("TEACHER_PAIR", "STUDENT", "METHOD", "SEED")
BASE_TEACHERS = 2  # teachers of every bench
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
    given = given or "store" in site_options(environment)
    if not copied or given or "MLFLOW_RUN_ID" not in environment:
        return overrides
    data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return [f"runtime.store={Path(data) / 'asib' / 'store'}", *overrides]


def site_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """The options in runtime/site.yaml of the user's own folder, if there is one.

    Raises:
        ConfigError: it cannot be read.
    """
    from pipeline.config.yaml_file import read_yaml  # takes omegaconf

    path = Path(environment.get(OWN, "")).expanduser() / "runtime" / "site.yaml"
    return read_yaml(path) if environment.get(OWN) and path.is_file() else {}


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
        value = new_name(value)
        key = "student" if value in options_of("student") else "student.model"
        _check_model(name, value, options_of("student"), errors)
        return [] if given & {"student", "student.model"} else [f"{key}={value}"]
    if name == "METHOD":
        value = new_name(value)
        group = next((k for k in ("cfg", "method") if value in options_of(k)), None)
        if group is None:
            allowed = [*options_of("cfg"), *options_of("method")]
            errors.append(f"METHOD={value}: unknown{nearest(value, allowed, show_all=True)}")
        return [] if given & {"cfg", "method"} else [f"{group}={value}"]
    teachers = [part.strip() for part in value.replace("+", ",").split(",")]
    if len(teachers) != 2 or not all(teachers):
        errors.append(f"TEACHER_PAIR={value}: two names with a comma, as in resnet20,resnet56")
        return []
    pair = _teachers(name, teachers, errors)
    free = [k for k in range(2) if not given & {"teacher", f"teacher.{k}.model"}]
    return [pair[k] for k in free]


def _teachers(name: str, models_named: list[str], errors: list[str]) -> list[str]:
    """Overrides that make teachers 0, 1 … those that option `name` lists: choices of the group
    `teacher`, or networks."""
    found, groups = [], options_of("teacher")
    for number, one in enumerate(map(new_name, models_named)):
        _check_model(name, one, groups, errors)
        key = f"teacher@teacher.{number}" if one in groups else f"teacher.{number}.model"
        found.append(f"{key}={one}")
    return found


def listed_teachers(overrides: list[str]) -> tuple[str, list[str]]:
    """(which teachers finetune and bank make: all, or numbers with commas; the other overrides).
    Teachers that `teacher=` lists by name take the place of the bench's.

    Raises:
        ConfigError: a name that is neither a teacher's nor a network's.
    """
    given = [o.removeprefix("teacher=") for o in overrides if o.startswith("teacher=")] or ["all"]
    rest = [o for o in overrides if not o.startswith("teacher=")]
    parts = [part.strip() for part in given[-1].strip("[]").split(",")]
    if parts == ["all"] or all(part.isdecimal() for part in parts):
        return ",".join(parts), rest
    errors: list[str] = []
    own = _teachers("teacher", parts, errors)
    if errors:
        raise ConfigError(errors)
    own += [f"teacher.{number}=null" for number in range(len(parts), BASE_TEACHERS)]
    own += ["bench.teacher_weights=null"] * (len(parts) != BASE_TEACHERS)
    return "all", [*own, *rest]


def _check_model(name: str, value: str, group: list[str], errors: list[str]) -> None:
    if value in group:
        return
    from trainers import models  # takes torch, which the verbs that read a store do not need

    if not models.exists(value):
        of_models = [one for one in models.names() if one not in group]
        known = [*group, *of_models, f"{models.TIMM_PREFIX}<name>"]
        errors.append(f"{name}: {value}: unknown{nearest(value, known, show_all=True)}")
