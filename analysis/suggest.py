"""The nearest known name to one that is unknown, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(word: object, names: Sequence[str], show_all: bool = False) -> str:
    """`; did you mean A or B?` (empty where no name is near) and, with `show_all`, ` (allowed:
    …)`. Dotted names are also compared by their last part. A name that differs by
    case alone is the nearest."""
    close = _near(str(word), names)
    guess = f"; did you mean {' or '.join(close)}?" if close else ""
    return guess + (f" (allowed: {', '.join(names)})" if show_all else "")


def _near(word: str, names: Sequence[str]) -> list[str]:
    if of_case := [name for name in names if name.lower() == word.lower()]:
        return of_case
    last = {name.rsplit(".", 1)[-1]: name for name in names}
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.6) or [
        last[name] for name in difflib.get_close_matches(word.rsplit(".", 1)[-1], last, n=2)
    ]
    return list(dict.fromkeys(close))
