"""Which runs gave warnings while they trained, and what those mean."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from analysis.runs import column
from pipeline import names

_LISTED = 8  # runs named with a warning


class Warned(NamedTuple):
    """A warning with the runs (`name (key)`) that gave it."""

    warning: str
    runs: tuple[str, ...]


def warned(runs: pd.DataFrame) -> tuple[Warned, ...]:
    """The warnings of all runs, whatever their status, in the order of `names.WARNINGS`; those
    that are not known there come last."""
    found: dict[str, dict[str, None]] = {name: {} for name in names.WARNINGS}
    for _, run in runs.iterrows():
        for warning in _of(run):
            found.setdefault(warning, {})[_label(run)] = None
    return tuple(Warned(warning, tuple(by)) for warning, by in found.items() if by)


def sentences(runs: pd.DataFrame) -> tuple[str, ...]:
    """One a warning: the runs that gave it and what it means; or that there was none; or that no
    run was looked at."""
    looked_at = column(runs, f"metrics.{names.HEALTH_METRICS}non_finite").notna()
    looked_at |= column(runs, f"tags.{names.HEALTH}").notna()
    if not looked_at.any():
        return ("No run logged its health.",)
    told = tuple(_sentence(one) for one in warned(runs))
    count = int(looked_at.sum())
    return told or (f"No warning in {count} run{'s' * (count != 1)}.",)


def _sentence(one: Warned) -> str:
    shown = ", ".join(one.runs[:_LISTED])
    more = f" and {len(one.runs) - _LISTED} more" if len(one.runs) > _LISTED else ""
    meaning = names.WARNINGS.get(one.warning, "A warning of another version.")
    return f"{one.warning} ({shown}{more}): {meaning}"


def _of(run: pd.Series) -> Iterator[str]:
    """By the tag of a run that has ended, and by the last values of one that has not."""
    tag = run.get(f"tags.{names.HEALTH}")
    if isinstance(tag, str):
        yield from (name for name in tag.split(",") if name)
    for key, value in run.items():
        if str(key).startswith(f"metrics.{names.HEALTH_METRICS}") and value == 1:
            yield str(key).removeprefix(f"metrics.{names.HEALTH_METRICS}")


def _label(run: pd.Series) -> str:
    key = run.get(f"tags.{names.RUN_KEY}")
    return f"{run['name']} ({key})" if isinstance(key, str) else str(run["name"])
