"""Filters of an analysis: bench, tags, dates and the rung of the primary claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from analysis import tags
from analysis.runs import column
from analysis.selection.configurations import RUNG_COLUMNS
from analysis.suggest import nearest

PRIMARY = "L4"  # the rung of the primary claim where none was declared
MARGIN = 0.005  # of equivalence: half a point
OF_STUDENTS = (
    tags.SEED,
    tags.RUNG,
    tags.METHOD,
    tags.STUDENT,
    tags.TEACHERS,
    tags.VARIANT,
    tags.RECIPE,
)
_LISTED = 24  # tags, or values of one, in a message


@dataclass(frozen=True)
class RunFilter:
    """Which runs are analysed. Dates are days or times as pandas reads them, in UTC."""

    bench: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    since: str | None = None
    until: str | None = None
    primary: str | None = None  # the rung of the primary claim; selects no run
    margin: float | None = None  # of equivalence, a fraction; selects no run

    @property
    def narrow(self) -> bool:
        """Whether some runs of a bench are left out, so that absent runs may exist elsewhere."""
        return bool(self.tags or self.since or self.until)

    def words(self) -> str:
        """The filters as `key=value` words of a command line; empty without a filter."""
        parts = [f"bench={self.bench}"] if self.bench else []
        parts += [f"tag.{name}={value}" for name, value in self.tags.items()]
        parts += [f"since={self.since}"] if self.since else []
        return " ".join([*parts, f"until={self.until}"] if self.until else parts)


def chosen(runs: pd.DataFrame, filters: RunFilter) -> pd.DataFrame:
    """The runs of the bench that have the tags and started between the dates of the filter.

    A tag that selects students (`OF_STUDENTS`) keeps all teachers and what studies declared;
    `until` a day includes that whole day. Raises ValueError for a date that cannot be read, dates
    between which no run started, a tag or a value that no run has, and a primary rung that never
    ran.
    """
    if filters.primary is not None:
        _check_primary(runs, filters.primary)
    for name, value in filters.tags.items() if len(runs) else ():
        _check_tag(runs, name, value)
    keep = pd.Series(True, runs.index)
    wanted = dict(filters.tags) | ({tags.BENCH: filters.bench} if filters.bench else {})
    teacher = column(runs, f"tags.{tags.STAGE}").eq("finetune")
    teacher |= column(runs, f"tags.{tags.CLAIM}").notna()
    for name, value in wanted.items():
        keep &= column(runs, f"tags.{name}").eq(value) | (teacher & (name in OF_STUDENTS))
    in_time = keep & _between(runs, filters.since, filters.until)
    if keep.any() and not in_time.any():
        started = runs["start_time"][keep]
        first, last = (f"{time:%Y-%m-%dT%H:%M}" for time in (started.min(), started.max()))
        raise ValueError(f"{filters.words()}: no run started then (first {first}, last {last})")
    return runs[in_time]


def _between(runs: pd.DataFrame, since: str | None, until: str | None) -> pd.Series:
    keep = pd.Series(True, runs.index)
    if since and until and _time("since", since) > _time("until", until):
        raise ValueError(f"since={since} is after until={until}")
    if since:
        keep &= runs["start_time"] >= _time("since", since)
    if until:
        end = _time("until", until)
        whole_day = end == end.normalize() and ":" not in until
        keep &= runs["start_time"] < (end + pd.Timedelta(days=1) if whole_day else end)
    return keep


def _check_tag(runs: pd.DataFrame, name: str, value: str) -> None:
    start, values = f"tag.{name}={value}: no run has", column(runs, f"tags.{name}").dropna()
    known = sorted({str(c).removeprefix("tags.") for c in runs if str(c).startswith("tags.")})
    if values.empty:
        raise ValueError(f"{start} the tag {name}{_near(name, known)}")
    if not values.eq(value).any():
        raise ValueError(f"{start} that value{_near(value, sorted(values.astype(str).unique()))}")


def _check_primary(runs: pd.DataFrame, rung: str) -> None:
    known = sorted(column(runs, RUNG_COLUMNS[1]).dropna().astype(str).unique())
    if rung != PRIMARY and rung not in known:
        raise ValueError(f"primary={rung}: no run of that rung or method{_near(rung, known)}")


def _near(word: str, known: Sequence[str]) -> str:
    more = f", … ({len(known)} in all)" if len(known) > _LISTED else ""
    return f"{nearest(word, known)} (there are: {', '.join(known[:_LISTED])}{more})"


def _time(option: str, text: str) -> pd.Timestamp:
    try:
        found = pd.Timestamp(text)
    except ValueError as error:
        raise ValueError(
            f"{option}={text}: no date (allowed: 2026-01-31, or 2026-01-31T12:00)"
        ) from error
    return found.tz_localize("UTC") if found.tzinfo is None else found.tz_convert("UTC")
