"""How a config dataclass states what may stand in a field: range, choices, meaning, identity.

The shell checks these facts, names the nearest valid value, and makes the reference page from
them; the numerics read plain attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OptionInfo:
    """What is known of an option beside its type and default."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: Callable[[], tuple[str, ...]] | None = None
    free: str | None = None  # a prefix after which any value is allowed, such as "timm:"
    when: Callable[[Any], bool] | None = None  # does it change results of this configuration?
    identity: bool = True  # False: it can never change a result (a path, say)


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Callable[[], tuple[str, ...]] | tuple[str, ...] | None = None,
    free: str | None = None,
    when: Callable[[Any], bool] | None = None,
    identity: bool = True,
) -> Any:
    """A dataclass field with its `OptionInfo`; `choices` can be a function of a registry."""
    allowed = (lambda: choices) if isinstance(choices, tuple) else choices
    fact = OptionInfo(help, low, high, allowed, free, when, identity)
    if isinstance(default, (list, dict, type)):
        factory = default if isinstance(default, type) else lambda: type(default)(default)
        return field(default_factory=factory, metadata={"fact": fact})
    return field(default=default, metadata={"fact": fact})


_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(text: str) -> int:
    """The number of bytes that `2GB`, `500 MB` or `1e9` says; units are powers of 1000.

    Raises:
        ValueError: not a size, or below 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE]\+?\d{1,2})?)\s*([KMGT]?B?)", text.strip(), re.I)
    unit = match[2].upper() if match else "?"
    if match is None or unit not in _UNITS:
        raise ValueError("not a size: type a number of bytes, or one with a unit: 500MB, 2GB")
    return int(float(match[1]) * _UNITS[unit])


def span(value: float, total: int) -> float:
    """Epochs of a length that is given in epochs (>= 1) or as a fraction of `total` (< 1)."""
    return value if value >= 1 else value * total
