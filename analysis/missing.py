"""The runs that a report lacks, with one command for all of a kind."""

from collections.abc import Iterable, Sequence

from analysis.report_model import MissingRun
from analysis.words import joined, separated

_RUNG = ("cfg", "method")  # options that name a rung or a method
_SEVERAL = "-m"
_HEAD = 4  # words of `python -m pipeline distill`


def merged(gaps: Iterable[MissingRun]) -> tuple[MissingRun, ...]:
    """The gaps with one command for all that differ in the rung alone (`-m cfg=CE,KD`). A rung
    that needs options of its own keeps a command of its own."""
    found: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for gap in dict.fromkeys(gaps):
        words, rungs = _without_rungs(separated(gap.command))
        whats, known = found.setdefault(words, ([], []))
        whats.append(gap.what)
        known += [rung for rung in rungs if rung not in known]
    return tuple(
        MissingRun(_sentence(whats, rungs), _command(words, rungs))
        for words, (whats, rungs) in found.items()
    )


def _without_rungs(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The words of a command, with `cfg=` in the place of `cfg=CE,KD`, and these rungs."""
    rungs: list[str] = []
    rest = list(words[:_HEAD])
    for word in words[_HEAD:]:
        key, equals, value = word.partition("=")
        if key in _RUNG:
            rungs, word = value.split(","), key + equals
        rest += [word] if word != _SEVERAL else []
    return tuple(rest), rungs


def _command(words: Sequence[str], rungs: Sequence[str]) -> str:
    options = [
        word + ",".join(rungs) if word in [f"{key}=" for key in _RUNG] else word
        for word in words[_HEAD:]
    ]
    several = [_SEVERAL] * any("," in option for option in options)
    return joined([*words[:_HEAD], *several, *options])


def _sentence(whats: Iterable[str], rungs: Sequence[str]) -> str:
    """`CE and KD have not finished`, of a sentence for each."""
    names: dict[str, list[str]] = {}
    for what in dict.fromkeys(whats):
        name, _, rest = what.partition(" ")
        name, rest = (name, rest) if name in rungs else ("", what)
        names.setdefault(rest, []).append(name)
    return "; ".join(_of(names, rest) for rest, names in names.items())


def _of(names: Sequence[str], rest: str) -> str:
    if len(names) > 1:
        return f"{', '.join(names[:-1])} and {names[-1]} {rest.replace('has ', 'have ', 1)}"
    return f"{names[0]} {rest}".strip()
