"""Which runs gave warnings while they trained, and what those mean."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.ladder_table import rung_order
from analysis.report_model import counted
from analysis.runs import column
from trainers import metrics
from trainers.health import WARNINGS

_LISTED = 3  # runs named with a warning; of more their rungs are


class Warned(NamedTuple):
    """A warning with the runs (`name (key)`) that gave it."""

    warning: str
    runs: tuple[str, ...]


def warned(runs: pd.DataFrame) -> tuple[Warned, ...]:
    """The warnings of all runs, whatever their status, in the order of `WARNINGS`; those
    that are not known there come last."""
    found: dict[str, dict[str, None]] = {name: {} for name in WARNINGS}
    for _, run in runs.iterrows():
        for warning in _of(run):
            found.setdefault(warning, {})[_label(run)] = None
    return tuple(Warned(warning, tuple(by)) for warning, by in found.items() if by)


def sentences(runs: pd.DataFrame, seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """One a warning: the runs that gave it and what it means; or that there was none; or that no
    run was looked at. `seen`: warnings that the store shows, whatever the runs gave."""
    values = [name for name in runs if str(name).startswith(f"metrics.{metrics.HEALTH}")]
    looked_at = runs[values].notna().any(axis=1) | column(runs, f"tags.{tags.HEALTH}").notna()
    if not looked_at.any():
        return (*seen, "No run logged its health.")
    rung_of = {_label(run): _rung(run) for _, run in runs[looked_at].iterrows()}
    told = tuple(_sentence(one, rung_of) for one in warned(runs[looked_at]))
    return (*told, *seen) or (f"No warning in {counted(int(looked_at.sum()), 'run')}.",)


def _sentence(one: Warned, rung_of: Mapping[str, str]) -> str:
    meaning = (
        WARNINGS[one.warning].advice if one.warning in WARNINGS else "A warning of another version."
    )
    which = ", ".join(one.runs) if len(one.runs) <= _LISTED else _of_rungs(one.runs, rung_of)
    return f"{one.warning} ({which}): {meaning}"


def _of_rungs(labels: Collection[str], rung_of: Mapping[str, str]) -> str:
    """`L2, L3: all 9 runs`, `L2, L3: 5 of 9 runs`, of the runs that were looked at."""
    rungs = rung_order({rung_of[label] for label in labels})
    among = sum(rung in rungs for rung in rung_of.values())
    share = f"all {among}" if len(labels) == among else f"{len(labels)} of {among}"
    return f"{', '.join(rungs)}: {share} runs"


def _rung(run: pd.Series) -> str:
    rung = run.get(f"tags.{tags.RUNG}")
    return rung if isinstance(rung, str) else "teachers"


def _of(run: pd.Series) -> Iterator[str]:
    """By the tag of a run that has ended, and by the last values of one that has not."""
    tag = run.get(f"tags.{tags.HEALTH}")
    if isinstance(tag, str):
        yield from (name for name in tag.split(",") if name)
    for key, value in run.items():
        if str(key).startswith(f"metrics.{metrics.HEALTH}") and value == 1:
            yield str(key).removeprefix(f"metrics.{metrics.HEALTH}")


def _label(run: pd.Series) -> str:
    key = run.get(f"tags.{tags.RUN_KEY}")
    return f"{run['name']} ({key})" if isinstance(key, str) else str(run["name"])
