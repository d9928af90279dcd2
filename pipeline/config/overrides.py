"""Reading overrides: choices of groups, values of options, deletions; the rest are errors."""

from __future__ import annotations

import re
import typing
from functools import cache
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from analysis.suggest import nearest
from pipeline.config import old_names
from pipeline.config.fields import leaves
from pipeline.config.groups import GROUPS, file_of, options_of
from pipeline.config.schema import Config
from trainers.options import OptionInfo

BASE_TEACHERS = 2  # teachers that conf/config.yaml names
LADDER = "asib"  # the method whose rungs conf/cfg holds
TEACHER = re.compile(r"teacher\.\d+")  # a whole teacher: `teacher.1=null` removes it
_SEVERAL = (
    "several values need -m (with mlflow run: -P multirun=true), one run each: "
    "python -m pipeline distill -m"
)
_OF_HYDRA = {  # options of Hydra's own that have another way here
    "hydra.run": "runtime.store=FOLDER is where runs are stored",
    "hydra.sweep.": "runtime.store=FOLDER is where runs are stored",
    "hydra/sweeper": "`python -m sweeps STUDY sampler=grid|tpe|gp|random` samples",
    "hydra.sweeper": "`python -m sweeps STUDY sampler=grid|tpe|gp|random` samples",
    "hydra.launcher": "choose a launcher too, as in hydra/launcher=submitit_slurm, and -m",
    "hydra/launcher": "only distill -m and studies start jobs",
    "hydra.mode": "-m runs several",
    "hydra.job.chdir": "commands stay in the folder that they are started in",
}


class Deleted(NamedTuple):
    """In the place of a value: the option has the default of its dataclass."""

    value: str | None  # deleted only if the files set this; None: whatever they set


def sort_overrides(
    overrides: list[str], errors: list[str]
) -> tuple[list[str], list[tuple[str, Any]]]:
    """(group choices, values by dotted key); what is neither is an error."""
    choices: list[str] = []
    values: list[tuple[str, Any]] = []
    for text in overrides:
        key, equals, value = text.lstrip("+").partition("=")
        if key.startswith("~"):
            _delete(key[1:], value if equals else None, choices, values, errors)
        elif not equals or not key:
            errors.append(f"{text!r} is not of the form key=value{_named(text)}")
        elif not value.strip().strip("'\"").strip():
            errors.append(f"{key}=: empty{_instead(key)}")
        elif "@" in key and not key.startswith("teacher@"):
            group = key.partition("@")[0]
            old = old_names.instead(key, value)
            errors.append(old or f"{key}={value}: a group is chosen as in {group}={value}")
        elif key.split("@")[0] in GROUPS and "." not in key.split("@")[0]:
            _check_choice(key, value, choices, errors)
        elif TEACHER.fullmatch(key):
            if value != "null":
                errors.append(f"{key}={value}: null (no such teacher), or teacher@{key}=NAME")
            values.append((key, None))
        elif _info_of(key) is None:
            errors.append(_unknown(key, value))
        else:
            _parse_value(key, value, values, errors)
    return choices, values


def _named(text: str) -> str:
    """The choices that a word without a key may be meant to be."""
    found = [f"{group}={text}" for group in GROUPS if text in options_of(group)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _unknown(key: str, value: str) -> str:
    """The error of a name that is no option, with what to give instead."""
    if key.startswith(("hydra.", "hydra/")):
        about = next((text for name, text in _OF_HYDRA.items() if key.startswith(name)), "")
        return f"{key}: not used here" + (f": {about}" if about else "")
    if within := [name for name in known_keys() if name.startswith(f"{key}.")]:
        return f"{key}={value}: a group of options, not a value; give one of: {', '.join(within)}"
    return old_names.instead(key, value) or f"{key}: no such option{nearest(key, known_keys())}"


def _delete(
    key: str,
    value: str | None,
    choices: list[str],
    values: list[tuple[str, Any]],
    errors: list[str],
) -> None:
    """`~key` and `~key=value`: what the files set is taken away, so that the option has its own
    default; a teacher or an experiment is left out."""
    key = key.removeprefix("teacher@")
    if TEACHER.fullmatch(key):
        values.append((key, None))
    elif key == "experiment":
        choices[:] = [choice for choice in choices if not choice.startswith("experiment=")]
    elif key in GROUPS:
        errors.append(f"~{key}: a run needs one; choose another, as in {key}=NAME")
    elif _info_of(key) is None:
        errors.append("~" + _unknown(key, value or ""))
    else:
        values.append((key, Deleted(value)))


def name_the_rung(choices: list[str], values: list[tuple[str, Any]], errors: list[str]) -> None:
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
    if value not in allowed and _is_sweep(key, value):
        errors.append(f"{key}={value}: {_SEVERAL} {key}={value}")
    elif value not in allowed:
        errors.append(f"{key}={value}: unknown{_hint(group, value, allowed)}")
    elif group == "teacher" and not (at and package.removeprefix("teacher.").isdigit()):
        errors.append(f"{key}={value}: give its number, as in teacher@teacher.0={value}")
    elif group == "teacher" and int(package.removeprefix("teacher.")) >= BASE_TEACHERS:
        choices.append(f"+{key}={value}")  # in addition to those of conf/config.yaml
    else:
        choices.append(f"{key}={value}")


def _is_sweep(key: str, value: str) -> bool:
    try:
        return parse_override(f"{key}={value}").is_sweep_override()
    except HydraException:
        return False


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
    return " (null: none)" if optional or TEACHER.fullmatch(key) else ": give a value"


def choices_of(key: str) -> tuple[str, ...]:
    """The values that an option is limited to, true and false included; empty: any."""
    info = _info_of(key)
    if info is None:
        return ()
    if info.choices is not None:
        return tuple(map(str, info.choices()))
    return ("true", "false") if _annotation_of(key) is bool else ()


def is_literal(key: str) -> bool:
    """Whether the value of an option is one text as it is given, never several values: free text,
    a path, and whatever is under `runtime.`."""
    key = key.lstrip("+")
    if key.startswith("runtime."):
        return True
    info = _info_of(key)
    return info is not None and info.choices is None and key not in GROUPS and is_text(key)


def is_text(key: str) -> bool:
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
    if annotation is str or (is_text(key) and value != "null" and not number):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in ("'", '"')
        values.append((key, value[1:-1] if quoted else value))
        return
    try:
        parsed = parse_override(f"{key}={value}")
        if parsed.is_sweep_override():
            reason = _of_sweep(key, value, interval=parsed.is_interval_sweep())
            errors.append(f"{key}={value}: {reason}")
        else:
            values.append((key, parsed.value()))
    except (HydraException, ValueError) as error:
        errors.append(f"{key}={value}: cannot be read: {str(error).splitlines()[0]}")


def _of_sweep(key: str, value: str, *, interval: bool) -> str:
    """Why an override of one run cannot stand for several values."""
    if key.startswith("runtime."):
        return "one value for all runs of a command"
    if interval:
        return f"a range to sample from is for studies: python -m sweeps STUDY {key}={value}"
    return f"{_SEVERAL} {key}={value}"


@cache
def _known() -> dict[str, tuple[Any, OptionInfo]]:
    return {key: (hint, info) for key, hint, info in leaves(Config)}


def known_keys() -> list[str]:
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
