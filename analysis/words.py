"""Words: those of a command as one text that a shell reads back, and how many of a thing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable


def joined(words: Iterable[str]) -> str:
    """The words as one text, quoted for a shell where they have to be."""
    return shlex.join(words)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text whose control characters, which a terminal would obey, are written out; line ends and
    tabulators stay."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def separated(text: str) -> list[str]:
    """The words of such a text; those of earlier versions, which were not quoted, are split at
    blanks where their quotes do not match."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def counted(count: int, what: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {what}{'s' * (count != 1)}"
