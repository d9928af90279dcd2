"""Compose a configuration: Hydra's groups, then single values, then all checks."""

from __future__ import annotations

import copy
import re
import typing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from analysis.suggest import nearest
from pipeline.config import extensions, old_names
from pipeline.config.errors import ConfigError
from pipeline.config.fields import build_dataclass, leaves
from pipeline.config.groups import CONF, GROUPS, LAUNCHER, OWN, file_of, folders, options_of
from pipeline.config.schema import Config
from pipeline.config.validate import contradictions
from pipeline.config.yaml_file import yaml_reason
from trainers.options import OptionInfo

BASE_TEACHERS = 2  # teachers that conf/config.yaml names
LADDER = "asib"  # the method whose rungs conf/cfg holds
_UNSET = object()  # unlike None, the value of no option
_TEACHER = re.compile(r"teacher\.\d+")  # a whole teacher: `teacher.1=null` removes it


def compose(overrides: list[str]) -> Config:
    """The configuration of Hydra overrides such as `cfg=L3 bench=digits method.ib_beta=1e-3`.

    Raises:
        ConfigError: unknown keys and names, wrong types, values out of range, contradictions;
            all of them, with the nearest valid names.
    """
    extensions.load()
    errors: list[str] = []
    choices, values = _sort_overrides(overrides, errors)
    _name_the_rung(choices, values, errors)
    container = _container(choices, values, errors)
    config = build_dataclass(Config, container, "", errors, _known_keys())
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


def chosen(overrides: list[str]) -> tuple[list[str], list[str]]:
    """(choices of groups as Hydra takes them, options that are given a value)."""
    choices, values = _sort_overrides(overrides, [])
    _name_the_rung(choices, values, [])
    return choices, [key for key, _ in values]


def _sort_overrides(
    overrides: list[str], errors: list[str]
) -> tuple[list[str], list[tuple[str, Any]]]:
    """(group choices, values by dotted key); what is neither is an error."""
    choices: list[str] = []
    values: list[tuple[str, Any]] = []
    for text in overrides:
        key, equals, value = text.lstrip("+").partition("=")
        if not equals or not key:
            errors.append(f"{text!r} is not of the form key=value")
        elif not value.strip().strip("'\"").strip():
            errors.append(f"{key}=: empty{_instead(key)}")
        elif "@" in key and not key.startswith("teacher@"):
            group = key.partition("@")[0]
            old = old_names.instead(key, value)
            errors.append(old or f"{key}={value}: a group is chosen as in {group}={value}")
        elif key.split("@")[0] in GROUPS and "." not in key.split("@")[0]:
            _check_choice(key, value, choices, errors)
        elif _TEACHER.fullmatch(key):
            if value != "null":
                errors.append(f"{key}={value}: null (no such teacher), or teacher@{key}=NAME")
            values.append((key, None))
        elif _info_of(key) is None:
            old = old_names.instead(key, value)
            errors.append(old or f"{key}: no such option{nearest(key, _known_keys())}")
        else:
            _parse_value(key, value, values, errors)
    return choices, values


def _name_the_rung(choices: list[str], values: list[tuple[str, Any]], errors: list[str]) -> None:
    """A method that is chosen by its name goes by that name, without the values of the rung that
    conf/config.yaml or an experiment starts with."""
    given = dict(choice.split("=", 1) for choice in choices)
    method, cfg = given.get("method"), given.get("cfg")
    if method is None:
        return
    if cfg is None:
        choices.append("~cfg")
        values.append(("cfg", method))
    elif not _of_ladder(method):
        errors.append(f"cfg={cfg} is a rung of method={LADDER}, not {method}: give one of them")


def _of_ladder(method: str) -> bool:
    """Whether rungs can be combined with a choice of the group `method`."""
    path = file_of("method", method)
    return path.is_file() and OmegaConf.select(OmegaConf.load(path), "name") == LADDER


def _check_choice(key: str, value: str, choices: list[str], errors: list[str]) -> None:
    group, at, package = key.partition("@")
    allowed = options_of(group)
    if value not in allowed:
        errors.append(f"{key}={value}: unknown{_hint(group, value, allowed)}")
    elif group == "teacher" and not (at and package.removeprefix("teacher.").isdigit()):
        errors.append(f"{key}={value}: give its number, as in teacher@teacher.0={value}")
    elif group == "teacher" and int(package.removeprefix("teacher.")) >= BASE_TEACHERS:
        choices.append(f"+{key}={value}")  # in addition to those of conf/config.yaml
    else:
        choices.append(f"{key}={value}")


def _hint(group: str, value: str, allowed: list[str]) -> str:
    """The names to choose from, or the rung or method of that name in the other group; of a name of
    the original framework, its name here."""
    if new := old_names.renamed(group, value):
        return f"; the original's {value} is {new} here"
    other, word = {"cfg": "method", "method": "cfg"}.get(group), value.lower()
    for name in options_of(other) if other else []:
        if name.lower() in (word, word.removeprefix(f"{LADDER}_")):
            return f"; did you mean {other}={name}? (allowed: {', '.join(allowed)})"
    return nearest(value, allowed, show_all=True)


def _instead(key: str) -> str:
    """What to give in the place of an empty value."""
    info = _info_of(key)
    optional = info is not None and type(None) in typing.get_args(_annotation_of(key))
    return " (null: none)" if optional or _TEACHER.fullmatch(key) else ": give a value"


def is_literal(key: str) -> bool:
    """Whether the value of an option is one text as it is given, never several values: free text,
    a path, and whatever is under `runtime.`."""
    key = key.lstrip("+")
    if key.startswith("runtime."):
        return True
    info = _info_of(key)
    return info is not None and info.choices is None and key not in GROUPS and _is_text(key)


def _is_text(key: str) -> bool:
    annotation = _annotation_of(key)
    return annotation is str or (
        typing.get_origin(annotation) is not list and str in typing.get_args(annotation)
    )


def parse_override(text: str) -> Override:
    """An override by Hydra's grammar.

    Raises:
        HydraException: it cannot be read.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except AttributeError as error:  # its parser tells functions from values by assertions
        reason = "a function such as range() needs Python without -O and PYTHONOPTIMIZE"
        raise HydraException(reason) from error


def _parse_value(key: str, value: str, values: list[tuple[str, Any]], errors: list[str]) -> None:
    """Text stays text where the option is text (a path may hold anything); the rest is read by
    Hydra's grammar."""
    annotation = _annotation_of(key)
    number = int in typing.get_args(annotation)  # or a word
    if annotation is str or (_is_text(key) and value != "null" and not number):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in ("'", '"')
        values.append((key, value[1:-1] if quoted else value))
        return
    try:
        parsed = parse_override(f"{key}={value}")
        if parsed.is_sweep_override():
            one = "one value for all runs of a command"
            literal = key.startswith("runtime.")
            raise ValueError(one if literal else "several values need -m (multirun)")
        values.append((key, parsed.value()))
    except (HydraException, ValueError) as error:
        errors.append(f"{key}={value}: cannot be read: {str(error).splitlines()[0]}")


def _container(
    choices: list[str], values: list[tuple[str, Any]], errors: list[str]
) -> dict[str, Any]:
    """Compose the chosen groups, then set the values. Text with `${` in it stays text; a value of
    another type may refer to an option."""
    literal = {key: value for key, value in values if isinstance(value, str) and "${" in value}
    removed = {key for key, _ in values if _TEACHER.fullmatch(key)}
    literal = {
        key: value
        for key, value in literal.items()
        if _is_text(key) and key.rpartition(".")[0] not in removed
    }
    config = copy.deepcopy(_chosen(folders(), tuple(choices)))
    for key, value in values:
        if not _TEACHER.fullmatch(key) and literal.get(key, _UNSET) != value:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    for key, _ in values:
        if _TEACHER.fullmatch(key):
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


class OwnFolder(SearchPathPlugin):
    """Hydra looks for a file in the user's own folder of options before conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in folders()[:-1]:
            search_path.prepend("own", f"file://{folder}", "main")


Plugins.instance().register(OwnFolder)
# Our dataclasses check the files of conf/hydra/launcher. The schemas of the same names, which
# hydra-submitit-launcher registers, lack our options.
for _file in ("submitit_local.yaml", "submitit_slurm.yaml"):
    del ConfigStore.instance().repo["hydra"]["launcher"][_file]


@cache
def _chosen(where: tuple[Path, ...], choices: tuple[str, ...]) -> DictConfig:
    """The chosen groups of the folders of options; jobs and trials of one command share them.

    Raises:
        ConfigError: a folder or a file cannot be read.
    """
    if absent := [folder for folder in where if not folder.is_dir()]:
        raise ConfigError([f"{OWN}={absent[0]}: no such folder"])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = hydra_compose("config", overrides=list(choices))
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
            raise ConfigError([f"{where[0]}: {yaml_reason(error)}"]) from error
    OmegaConf.set_struct(config, False)
    return config


def launcher_values(name: str) -> dict[str, Any]:
    """The values of a file of conf/hydra/launcher, composed by Hydra.

    Raises:
        ConfigError: it cannot be composed.
    """
    path = file_of(LAUNCHER, name)
    own = ["hydra.job.name=asib", "hydra.job.num=0", "hydra.job.id=0"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            words = [f"{LAUNCHER}={name}", *own]
            config = hydra_compose("config", overrides=words, return_hydra_config=True)
            found = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
            raise ConfigError([f"{path}: {yaml_reason(error)}"]) from error
    return typing.cast(dict[str, Any], found)


@cache
def _data_of(bench: str) -> str | None:
    """The data set that a bench of conf/bench chooses; None if there is no such bench."""
    path = file_of("bench", bench)
    if not path.is_file():
        return None
    parts = OmegaConf.select(OmegaConf.load(path), "defaults", default=[])
    return next((str(part["override /data"]) for part in parts if "override /data" in part), None)


@cache
def _known() -> dict[str, tuple[Any, OptionInfo]]:
    return {key: (hint, info) for key, hint, info in leaves(Config)}


def _known_keys() -> list[str]:
    return list(_known()) + list(GROUPS)


def _canonical_key(key: str) -> str:
    parts = key.split(".")
    if len(parts) > 1 and parts[0] == "teacher" and parts[1].isdigit():
        parts[1] = "0"
    return ".".join(parts)


def _info_of(key: str) -> OptionInfo | None:
    entry = _known().get(_canonical_key(key))
    return entry[1] if entry else None


def _annotation_of(key: str) -> Any:
    return _known()[_canonical_key(key)][0]
