"""Fonts for names in any script: matplotlib's own has Latin, Greek and Cyrillic letters."""

from __future__ import annotations

from functools import cache

from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"
_LAST_RESORT = "Last Resort"  # a font of boxes


def families(text: str) -> list[str] | None:
    """The installed font families that together have every character of a text, matplotlib's own
    first; None where no font has one of them."""
    lacking = {ord(one) for one in text if not one.isspace()} - _characters(findfont(OWN))
    found = [OWN]
    for font in sorted(fontManager.ttflist, key=lambda one: one.name) if lacking else ():
        if font.name.startswith(_LAST_RESORT) or not lacking & _characters(font.fname):
            continue
        found.append(font.name)
        lacking -= _characters(font.fname)
        if not lacking:
            break
    return None if lacking else found


def writable(text: str) -> str:
    """A text with `?` for the characters that no installed font has."""
    return "".join(one if families(one) else "?" for one in text) if not families(text) else text


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters that a font draws; none of one that is made of pixels."""
    font = FT2Font(path)
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
