"""A config dataclass from plain values; every wrong value is reported, with the nearest name."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from analysis.suggest import nearest
from trainers import models
from trainers.finetune import TeacherConfig
from trainers.methods import METHODS
from trainers.options import OptionInfo


def build_dataclass(
    cls: type,
    container: Any,
    prefix: str,
    errors: list[str],
    names: list[str] | None = None,
    whose: str = "",
) -> Any:
    """An instance of `cls` from plain values; what is wrong is added to `errors`.

    For an unknown name one of `names` is suggested (None: of the options of `cls`); `whose` is
    added to the message, as in " of method kd".
    """
    names = [key for key, _, _ in leaves(cls, prefix)] if names is None else names
    if not isinstance(container, dict):
        errors.append(f"{prefix.rstrip('.')}={container!r}: a group of options, not a value")
        return cls()
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for name in container:
        if name not in known:
            errors.append(f"{prefix}{name}: no such option{whose}{nearest(prefix + name, names)}")
    found = {}
    for name, field in known.items():
        if name not in container:
            continue
        key, value = prefix + name, container[name]
        if key == "method":
            found[name] = _build_method(value, errors, names)
        elif key == "teacher":
            found[name] = {
                number: build_dataclass(TeacherConfig, one, f"teacher.{number}.", errors, names)
                for number, one in sorted(value.items())
            }
        elif is_dataclass(hints[name]):
            found[name] = build_dataclass(
                typing.cast(type, hints[name]), value, f"{key}.", errors, names
            )
        else:
            fits, value = _cast(_word(value, field.metadata["info"]), hints[name])
            if field.metadata["info"].path and isinstance(value, str):
                value = os.path.expanduser(value)
            wrong = (
                _errors_of(key, value, field.metadata["info"])
                if fits
                else [_misfit(key, value, hints[name], field.metadata["info"])]
            )
            errors += wrong
            if not wrong:  # else the default is kept, so that the other checks still run
                found[name] = value
    return cls(**found)


def _build_method(value: Any, errors: list[str], names: list[str]) -> Any:
    name = value.get("name") if isinstance(value, dict) else value
    if name not in METHODS:
        errors.append(f"method.name={name}: unknown{nearest(str(name), list(METHODS), True)}")
        return value
    cls = METHODS[name].config_type
    # Options of other methods are no suggestion for this one.
    own = [key for key, _, _ in leaves(cls, "method.")]
    own += [key for key in names if not key.startswith("method.")]
    return build_dataclass(cls, value, "method.", errors, own, f" of method {name}")


def _errors_of(key: str, value: Any, info: OptionInfo) -> list[str]:
    """Errors of a value of the right type: out of range, not among the choices."""
    errors = []
    if info.path and isinstance(value, str) and value.startswith("~"):
        errors.append(f"{key}={value}: no such user; of a folder of that name: ./{value}")
    if isinstance(value, str) and not value.strip():
        errors.append(f"{key}=: empty")
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        low, high = info.low, info.high
        # `not (… <= …)` and not `>`, so that a NaN is caught.
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            hint = " (a fraction: 65 % is 0.65)" if high == 1 and 1 < number <= 100 else ""
            between = "in " * (low is not None and high is not None)
            errors.append(f"{key}={number}: must be {between}{range_name(low, high)}{hint}")
        elif number != number or number in (float("inf"), float("-inf")):
            errors.append(f"{key}={number}: not a finite number")
    counts = isinstance(value, int) and info.low is not None  # a number, not one of the words
    if info.choices is not None and value is not None and not counts:
        allowed, free = _allowed(info), info.free
        if value not in info.choices() and not (free and models.exists(str(value))):
            hint = nearest(value, allowed, True)
            if free and models.exists(f"{free}{value}"):
                hint = f"; did you mean {free}{value}? (allowed: {', '.join(allowed)})"
            errors.append(f"{key}={value}: unknown{hint}")
    return errors


def _misfit(key: str, value: Any, hint: Any, info: OptionInfo) -> str:
    """The error of a value of another type."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else value
    if info.choices is None:
        return f"{key}={text}: not {type_name(hint)}"
    return f"{key}={text}: unknown{nearest(text, _allowed(info), True)}"


def _allowed(info: OptionInfo) -> list[str]:
    """The words of an option that has some, and in words what else it may be."""
    assert info.choices is not None
    also = [f"{info.free}<name>"] if info.free else []
    also += [] if info.low is None else [f"a number {range_name(info.low, info.high)}"]
    return [*info.choices(), *also]


def _word(value: Any, info: OptionInfo) -> Any:
    """The value as it was written: YAML reads the word off, without quotes, as false."""
    words = info.choices() if value is False and info.choices is not None else []
    return "off" if "off" in words else value


def _cast(value: Any, annotation: Any) -> tuple[bool, Any]:
    """(whether it fits, the value as that type). A whole number fits where a number is wanted."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        tried = [_cast(value, option) for option in typing.get_args(annotation)]
        return next(((ok, v) for ok, v in tried if ok), (False, value))
    if annotation is type(None):
        return value is None, value
    if typing.get_origin(annotation) is list:
        if not isinstance(value, list):
            return False, value
        parts = [_cast(v, typing.get_args(annotation)[0]) for v in value]
        return all(ok for ok, _ in parts), [v for _, v in parts]
    if typing.get_origin(annotation) is dict:
        return isinstance(value, dict), value
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if annotation is str and isinstance(value, int | float) and not isinstance(value, bool):
        return True, str(value)
    return type(value) is annotation, value


def type_name(annotation: Any) -> str:
    """A type in plain words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is list:
        return f"a list, each {type_name(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is dict:
        return "{name: value, ...}"
    parts = typing.get_args(annotation)
    null = ["null"] if type(None) in parts else []
    return " or ".join([type_name(a) for a in parts if a is not type(None)] + null)


def range_name(low: float | None, high: float | None) -> str:
    """`>= 1`, `<= 5` or `0 … 1`."""
    if low is None or high is None:
        return f">= {low:g}" if low is not None else f"<= {high:g}"
    return f"{low:g} … {high:g}"


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, OptionInfo]]:
    """(dotted key, type, description) of every option below a dataclass; teachers as `teacher.0.…`,
    methods one after the other."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        key, hint = prefix + field.name, hints[field.name]
        if key == "method":
            for method in METHODS.values():
                yield from leaves(method.config_type, "method.")
        elif key == "teacher":
            yield from leaves(TeacherConfig, "teacher.0.")
        elif is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{key}.")
        else:
            yield key, hint, field.metadata["info"]
