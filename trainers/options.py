"""Options of config dataclasses: range, choices, meaning, and whether they are part of identity.

The pipeline checks values against them, suggests the nearest valid one and makes the reference
page from them; the numerics read plain attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class When:
    """A condition on a config dataclass, and its text, as in "where the schedule is step"."""

    text: str
    holds: Callable[[Any], bool]

    def __call__(self, config: Any) -> bool:
        return self.holds(config)


@dataclass(frozen=True)
class OptionInfo:
    """The description of an option, in addition to its type and default."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: Callable[[], tuple[str, ...]] | None = None
    free: str | None = None  # a prefix after which any value is allowed, such as "timm:"
    when: When | None = None  # where it changes results (None: everywhere)
    identity: bool = True  # False: it can never change a result (such as a path)
    added: bool = False  # newer than finished runs, whose keys lack it: no key has its default
    path: bool = False  # a path: `~` at its beginning is the home folder


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Callable[[], tuple[str, ...]] | tuple[str, ...] | None = None,
    free: str | None = None,
    when: When | None = None,
    identity: bool = True,
    added: bool = False,
    path: bool = False,
) -> Any:
    """A dataclass field with its `OptionInfo`; `choices` can be a function of a registry."""
    allowed = (lambda: choices) if isinstance(choices, tuple) else choices
    info = OptionInfo(help, low, high, allowed, free, when, identity, added, path)
    if isinstance(default, (list, dict, type)):
        factory = default if isinstance(default, type) else lambda: type(default)(default)
        return field(default_factory=factory, metadata={"info": info})
    return field(default=default, metadata={"info": info})


def default_of(config: type, name: str) -> Any:
    """The default of an option of a config dataclass."""
    found = next(f for f in fields(config) if f.name == name)
    return found.default_factory() if callable(found.default_factory) else found.default


_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(text: str) -> int:
    """The number of bytes of `2GB`, `500 MB` or `1e9`; units are powers of 1000.

    Raises:
        ValueError: not a size, or below 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?)\s*([KMGT]?B?)", text.strip(), re.I)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in _UNITS:
        raise ValueError("not a size: give a number of bytes, or one with a unit: 500MB, 2GB")
    return int(float(match[1]) * _UNITS[unit])


def span(value: float, total: int) -> float:
    """Epochs of a length that is given in epochs (>= 1) or as a fraction of `total` (< 1)."""
    return value if value >= 1 else value * total
