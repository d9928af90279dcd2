"""What an analysis may look at: the runs of one bench that count, and their histories."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from analysis import tags
from analysis.ladder_table import PRIMARY
from analysis.runs import Selection, column, select, split
from analysis.selection import overrides
from analysis.selection.configurations import (
    RUNG_COLUMNS,
    configuration,
    one_configuration,
    seeds_of,
)
from analysis.suggest import nearest

FEWEST_SEEDS = 3  # below it an interval says next to nothing
OF_STUDENTS = (tags.SEED, tags.RUNG, tags.METHOD, tags.STUDENT, tags.TEACHERS)
_LISTED = 24  # tags, or values of one, in a message

Histories = Callable[[Sequence[str], Sequence[str]], pd.DataFrame]


@dataclass(frozen=True)
class RunFilter:
    """Which runs are looked at. Dates are days or times as pandas reads them, in UTC."""

    bench: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    since: str | None = None
    until: str | None = None
    primary: str = PRIMARY  # the rung of the claim that was fixed beforehand; chooses no run

    @property
    def narrow(self) -> bool:
        """Whether runs of a bench are left out, so that what is missing tells nothing."""
        return bool(self.tags or self.since or self.until)

    def words(self) -> str:
        """The filters as they were typed, empty where there are none."""
        parts = [f"bench={self.bench}"] if self.bench else []
        parts += [f"tag.{name}={value}" for name, value in self.tags.items()]
        parts += [f"since={self.since}"] if self.since else []
        return " ".join([*parts, f"until={self.until}"] if self.until else parts)


def chosen(runs: pd.DataFrame, asked: RunFilter) -> pd.DataFrame:
    """The runs that started in the time asked for, on the bench and with the tags asked for.

    A tag that says which students are meant (`OF_STUDENTS`) keeps all teachers; `until` a day takes
    that whole day. Raises ValueError for a date that cannot be read, a time in which no run began,
    a tag or a value of it that no run has, and a primary rung that never ran.
    """
    _check_primary(runs, asked.primary)
    for name, value in asked.tags.items() if len(runs) else ():
        _check_tag(runs, name, value)
    keep = pd.Series(True, runs.index)
    wanted = dict(asked.tags) | ({tags.BENCH: asked.bench} if asked.bench else {})
    teacher = column(runs, f"tags.{tags.STAGE}").eq("finetune")
    for name, value in wanted.items():
        keep &= column(runs, f"tags.{name}").eq(value) | (teacher & (name in OF_STUDENTS))
    tagged = keep.copy()
    if asked.since:
        keep &= runs["start_time"] >= _time("since", asked.since)
    if asked.since and asked.until and _time("since", asked.since) > _time("until", asked.until):
        raise ValueError(f"since={asked.since} is after until={asked.until}")
    if asked.until:
        end = _time("until", asked.until)
        whole_day = end == end.normalize() and ":" not in asked.until
        keep &= runs["start_time"] < (end + pd.Timedelta(days=1) if whole_day else end)
    if tagged.any() and not keep.any():
        began = runs["start_time"][tagged]
        first, last = (f"{time:%Y-%m-%dT%H:%M}" for time in (began.min(), began.max()))
        raise ValueError(f"{asked.words()}: no run began then (they did from {first} to {last})")
    return runs[keep]


def _check_tag(runs: pd.DataFrame, name: str, value: str) -> None:
    start, there = f"tag.{name}={value}: no run has", column(runs, f"tags.{name}").dropna()
    known = sorted({str(c).removeprefix("tags.") for c in runs if str(c).startswith("tags.")})
    if there.empty:
        raise ValueError(f"{start} the tag {name}{_near(name, known)}")
    if not there.eq(value).any():
        raise ValueError(f"{start} that value{_near(value, sorted(there.astype(str).unique()))}")


def _check_primary(runs: pd.DataFrame, rung: str) -> None:
    there = sorted(column(runs, RUNG_COLUMNS[1]).dropna().astype(str).unique())
    if rung != PRIMARY and rung not in there:
        raise ValueError(f"primary={rung}: no run of that rung or method{_near(rung, there)}")


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


@dataclass(frozen=True)
class BenchRuns:
    """All runs of one bench, whatever their status, and how to read their histories."""

    bench: str
    runs: pd.DataFrame
    histories: Histories
    primary: str = PRIMARY

    @cached_property
    def finished(self) -> Selection:
        """Distillation runs with a test value, each key once."""
        return select(self.runs, stage="distill", bench=self.bench)

    @cached_property
    def ladder(self) -> Selection:
        """Of those, one configuration a rung: what a mean over seeds may be taken of."""
        return one_configuration(self.finished)

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The runs of `ladder` that count."""
        return self.ladder.kept

    def history(self, runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
        """Histories as `load_history` gives them, of metrics that some of these runs logged."""
        logged = [name for name in metrics if column(runs, f"metrics.{name}").notna().any()]
        return self.histories(runs["run_id"].tolist(), logged)

    def of(self, rung: str) -> pd.DataFrame:
        """The runs that count of one rung."""
        return self.kept[column(self.kept, RUNG_COLUMNS[1]).eq(rung)]

    def _experiment(self, said: Sequence[str]) -> list[str]:
        """The option that puts a run beside these, where the default would not."""
        key = "runtime.experiment="
        there = column(self.runs, "experiment").dropna().unique()
        needed = len(there) == 1 and there[0] != tags.DEFAULT_EXPERIMENT
        return [f"{key}{there[0]}"] if needed and not any(w.startswith(key) for w in said) else []

    def command(self, **changes: object) -> str:
        """The command of a run that would stand beside those of the bench: what was typed for
        more than half of the rungs that count, with `changes` (`method__ib_beta` is
        `method.ib_beta`), in their experiment. Of a rung or method that is there its own runs are
        taken. Several values of a change, with commas, are a multirun."""
        given = {key.replace("__", "."): str(value) for key, value in changes.items()}
        own = self.of(given.get("cfg") or given.get("method", ""))
        common = overrides.common(_typed(own) if len(own) else self._typed_beside())
        # What was typed for the terms of one method is no option of another.
        another = "method" in given or ("cfg" in given and any(map(_is_method, common)))
        other = another and not len(own)
        shared = [w for w in common if not (_own(w, given) or (other and w.startswith("method.")))]
        shared += self._experiment(shared)
        on_bench = [] if any(w.startswith("bench=") for w in shared) else [f"bench={self.bench}"]
        said = [f"{key}={value}" for key, value in given.items()]
        several = ["-m"] * any("," in value for value in given.values())
        return " ".join(["python -m pipeline distill", *several, *on_bench, *shared, *said])

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that a row of a table should have: those of the runs that count, and the
        lowest others where these are fewer than `FEWEST_SEEDS`."""
        there = sorted(set(seeds_of(self.kept).dropna().astype(int)))
        others = (seed for seed in range(FEWEST_SEEDS + len(there)) if seed not in there)
        return there + list(itertools.islice(others, max(0, FEWEST_SEEDS - len(there))))

    def multirun(self, at: Sequence[int] = (), **changes: object) -> str:
        """`command` at each of these seeds (none given: at `seeds`)."""
        return self.command(**changes, seed=",".join(map(str, at or self.seeds)))

    def _typed_beside(self) -> list[list[str]]:
        """The words typed for each rung that counts; of one that is alone without those of its
        configuration, for no other rung tells whether they belong to all."""
        rungs = column(self.kept, RUNG_COLUMNS[1]).dropna().unique()
        found = [overrides.common(_typed(self.of(rung))) for rung in rungs]
        if len(found) > 1:
            return found
        everything = set(overrides.common(_typed(self.finished.kept)))
        return [[word for word in words if word in everything] for words in found]


def _typed(runs: pd.DataFrame) -> list[list[str]]:
    """The words typed for each run that says so."""
    return overrides.words(runs).dropna().tolist()


def _is_method(word: str) -> bool:
    return word.startswith("method=")


def _own(word: str, given: Mapping[str, str]) -> bool:
    """Whether a word of a command line belongs to one run, not to all that it is compared with."""
    key = word.partition("=")[0]
    return key in ("cfg", "seed") or key in given or (key == "method" and "cfg" in given)


def grid(finished: Selection, parameter: str) -> Selection:
    """Runs that differ in one parameter (and seeds) alone, for the rung with the most values.

    Of each rung the configuration with the most (value, seed) pairs is kept, of the rungs that
    with the most values; then the newest run of each pair. What is left out has a reason.
    """
    frame = finished.kept
    seeds, value = seeds_of(frame), column(frame, f"params.{parameter}")
    usable = frame[seeds.notna() & value.notna()].sort_values("start_time", ascending=False)
    reason = pd.Series(f"no {parameter} or no seed", frame.index, dtype=object)
    if len(usable):
        best = _largest(usable, parameter)
        reason[usable.index] = f"not of the grid over {parameter}"
        pairs = pd.DataFrame({"v": value[best], "s": seeds[best]})
        repeated = pairs.duplicated()
        reason[repeated.index[repeated]] = "older run of the same seed"
        reason[repeated.index[~repeated]] = None
    return split(frame, reason)


def _largest(usable: pd.DataFrame, parameter: str) -> pd.Index:
    """The rows of the rung and configuration with the most values of the parameter."""
    typed = configuration(usable).drop(columns=f"params.{parameter}")
    signature = typed.agg("\n".join, axis=1).str.cat(column(usable, RUNG_COLUMNS[1]).astype(str))
    value = column(usable, f"params.{parameter}")
    groups = list(usable.groupby(signature, sort=False).groups.values())
    return max(groups, key=lambda rows: (value[rows].nunique(), len(rows)))
