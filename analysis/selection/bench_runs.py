"""The runs of one bench: those that count, their histories, and the commands of absent ones."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis import tags
from analysis.runs import Selection, column, select, split
from analysis.selection.configurations import (
    RUNG_COLUMNS,
    configuration,
    one_configuration,
    seeds_of,
)
from analysis.words import joined, separated

FEWEST_SEEDS = 3  # below it an interval says next to nothing

Histories = Callable[[Sequence[str], Sequence[str]], pd.DataFrame]


@dataclass(frozen=True)
class BenchRuns:
    """All runs of one bench, whatever their status, and how to read their histories. `primary` and
    `margin` are as the user gave them; the level of claims is shared by `benches`."""

    bench: str
    runs: pd.DataFrame
    histories: Histories
    primary: str | None = None
    margin: float | None = None
    benches: int = 1

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

    def _experiment(self, words: Sequence[str]) -> list[str]:
        """The option of the experiment that these runs are in, where it is not the default."""
        key = "runtime.experiment="
        names = column(self.runs, "experiment").dropna().unique()
        needed = len(names) == 1 and names[0] != tags.DEFAULT_EXPERIMENT
        return [f"{key}{names[0]}"] if needed and not any(w.startswith(key) for w in words) else []

    def command(self, **changes: object) -> str:
        """The command of a run that can be compared with those of the bench: the overrides of more
        than half of the rungs that count, with `changes` (`method__ib_beta` is `method.ib_beta`),
        in their experiment. For a rung or method that has runs, the overrides of those runs.
        Several values of a change, with commas, are a multirun."""
        given = {key.replace("__", "."): str(value) for key, value in changes.items()}
        own = self.of(given.get("cfg") or given.get("method", ""))
        common = _common(_overrides(own) if len(own) else self._overrides_of_rungs())
        # An option of one method is no option of another.
        another = "method" in given or ("cfg" in given and any(map(_is_method, common)))
        other = another and not len(own)
        shared = [w for w in common if not (_own(w, given) or (other and w.startswith("method.")))]
        shared += [*self._experiment(shared), *self._launcher()]
        name = self.bench.partition(" ")[0]  # of `digits overlap=0` the bench or an override has it
        on_bench = [] if any(w.startswith("bench=") for w in shared) else [f"bench={name}"]
        words = [f"{key}={value}" for key, value in given.items()]
        several = ["-m"] * any("," in value for value in given.values())
        return joined(["python", "-m", "pipeline", "distill", *several, *on_bench, *shared, *words])

    def _launcher(self) -> list[str]:
        """The options of the launcher that ran the latest run as a job."""
        latest = self.kept.sort_values("start_time")[-1:]
        lines = column(latest, f"tags.{tags.LAUNCHER}").dropna()
        return [word for line in lines for word in separated(line)]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that a row of a table should have: those of the runs that count, and the
        lowest others where these are fewer than `FEWEST_SEEDS`."""
        known = sorted(set(seeds_of(self.kept).dropna().astype(int)))
        others = (seed for seed in range(FEWEST_SEEDS + len(known)) if seed not in known)
        return known + list(itertools.islice(others, max(0, FEWEST_SEEDS - len(known))))

    def multirun(self, at: Sequence[int] = (), **changes: object) -> str:
        """`command` at each of these seeds (default: `seeds`)."""
        return self.command(**changes, seed=",".join(map(str, at or self.seeds)))

    def _overrides_of_rungs(self) -> list[list[str]]:
        """The common overrides of each rung that counts. Of a single rung only those that all its
        configurations share: no other rung shows which of the rest belong to all."""
        rungs = column(self.kept, RUNG_COLUMNS[1]).dropna().unique()
        found = [_common(_overrides(self.of(rung))) for rung in rungs]
        if len(found) > 1:
            return found
        everything = set(_common(_overrides(self.finished.kept)))
        return [[word for word in words if word in everything] for words in found]


def _overrides(runs: pd.DataFrame) -> list[list[str]]:
    """The overrides of each run that logged them."""
    lines = column(runs, "params.overrides")
    return [separated(line) for line in lines if isinstance(line, str)]


def _common(lines: Iterable[Collection[str]]) -> list[str]:
    """The overrides of more than half of the lines, in the order in which they first come."""
    lines = list(lines)
    counts = Counter(word for line in lines for word in dict.fromkeys(line))
    return [word for word, count in counts.items() if count > len(lines) / 2]


def _is_method(word: str) -> bool:
    return word.startswith("method=")


def _own(word: str, given: Mapping[str, str]) -> bool:
    """Whether an override belongs to one run, not to all that it is compared with."""
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
    parameters = configuration(usable).drop(columns=f"params.{parameter}")
    signature = parameters.agg("\n".join, axis=1).str.cat(
        column(usable, RUNG_COLUMNS[1]).astype(str)
    )
    value = column(usable, f"params.{parameter}")
    groups = list(usable.groupby(signature, sort=False).groups.values())
    return max(groups, key=lambda rows: (value[rows].nunique(), len(rows)))
