"""The words of a command: as one text that a shell reads back, and from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def joined(words: Iterable[str]) -> str:
    """The words as one text, quoted for a shell where they have to be."""
    return shlex.join(words)


def separated(text: str) -> list[str]:
    """The words of such a text; those of earlier versions, which were not quoted, are split at
    blanks where their quotes do not match."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
