"""Compose a configuration: Hydra's groups, then single values, then all checks."""

from __future__ import annotations

import copy
import typing
from functools import cache, lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import extensions
from pipeline.config.errors import ConfigError
from pipeline.config.fields import build_dataclass
from pipeline.config.groups import file_of, folders
from pipeline.config.hydra_files import of_groups
from pipeline.config.overrides import (
    TEACHER,
    Deleted,
    is_text,
    known_keys,
    name_the_rung,
    sort_overrides,
)
from pipeline.config.schema import Config
from pipeline.config.validate import contradictions

_UNSET = object()  # unlike None, the value of no option


def compose(overrides: list[str]) -> Config:
    """The configuration of Hydra overrides such as `cfg=L3 bench=digits method.ib_beta=1e-3`.

    Raises:
        ConfigError: unknown keys and names, wrong types, values out of range, contradictions;
            all of them, with the nearest valid names.
    """
    extensions.load()
    errors: list[str] = []
    choices, values = sort_overrides(overrides, errors)
    name_the_rung(choices, values, errors)
    container = _container(choices, values, errors)
    config = build_dataclass(Config, container, "", errors, known_keys())
    if isinstance(config.method, dict):
        errors += [] if errors else ["method: nothing chosen"]
    else:
        errors += contradictions(config)
    if errors:
        usable = None if isinstance(config.method, dict) else config
        raise ConfigError(list(dict.fromkeys(errors)), usable)
    config.method = config.method.settled(specialised=config.specialised)
    own = _data_of(config.bench.name)
    if own is not None and config.data.name != own:  # a separate bench, in names and tables
        config.bench.name += f"-{config.data.name}"
    return config


@lru_cache(maxsize=1024)
def composed(overrides: tuple[str, ...]) -> Config:
    """`compose`, once a process: for planning, checking and running."""
    return compose(list(overrides))


def chosen(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """(choices of groups as Hydra takes them, values of options, some `Deleted`)."""
    choices, values = sort_overrides(overrides, [])
    name_the_rung(choices, values, [])
    return choices, dict(values)


def _container(
    choices: list[str], values: list[tuple[str, Any]], errors: list[str]
) -> dict[str, Any]:
    """Compose the chosen groups, then set the values. Text with `${` in it stays text; a value of
    another type may refer to an option."""
    literal = {key: value for key, value in values if isinstance(value, str) and "${" in value}
    removed = {key for key, _ in values if TEACHER.fullmatch(key)}
    literal = {
        key: value
        for key, value in literal.items()
        if is_text(key) and key.rpartition(".")[0] not in removed
    }
    config = copy.deepcopy(of_groups(folders(), tuple(choices)))
    for key, value in values:
        if isinstance(value, Deleted):
            _take_away(config, key, value, errors)
        elif not TEACHER.fullmatch(key) and literal.get(key, _UNSET) != value:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    for key, _ in values:
        if TEACHER.fullmatch(key):
            config.teacher.pop(key.partition(".")[2], None)
    try:
        found = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        errors.append(f"{error.full_key}: {str(error).splitlines()[0]}")
        return {}
    for key, value in literal.items():
        *groups, name = key.split(".")
        inner: Any = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return typing.cast(dict[str, Any], found)


def _take_away(config: DictConfig, key: str, deleted: Deleted, errors: list[str]) -> None:
    """Delete what files set for an option."""
    group, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, group) if group else config
    if not isinstance(parent, DictConfig) or name not in parent:
        errors.append(f"~{key}: no file sets it")
    elif deleted.value is not None and str(parent[name]) != deleted.value:
        errors.append(f"~{key}={deleted.value}: it is {parent[name]}")
    else:
        parent.pop(name)


@cache
def _data_of(bench: str) -> str | None:
    """The data set that a bench of conf/bench chooses; None if there is no such bench."""
    path = file_of("bench", bench)
    if not path.is_file():
        return None
    parts = OmegaConf.select(OmegaConf.load(path), "defaults", default=[])
    return next((str(part["override /data"]) for part in parts if "override /data" in part), None)
