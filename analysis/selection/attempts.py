"""What was tried of each rung: seeds that finished, seeds that failed, and configurations."""

from collections.abc import Iterable
from math import comb
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import column
from analysis.selection.configurations import RUNG_COLUMNS, recipes, seeds_of
from trainers import metrics

LEVEL = 0.05  # of Fisher's test
_OPEN = ("RUNNING", "SCHEDULED")


class Attempts(NamedTuple):
    """Seeds of the configuration that is shown, and how many configurations finished. `p`: of
    Fisher's exact test that as many of the others' seeds (`others` of `of_others`) failed."""

    finished: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    configurations: int = 0
    others: int = 0
    of_others: int = 0
    p: float = 1.0

    @property
    def seeds(self) -> int:
        return len(self.finished) + len(self.failed)

    def against(self, controls: Iterable["Attempts"]) -> "Attempts | None":
        """With the controls' failures, where they are significantly fewer; None otherwise."""
        controls = list(controls)
        lost, kept = (
            (
                sum(map(len, sets))
                for sets in zip(*((c.failed, c.finished) for c in controls), strict=True)
            )
            if controls
            else (0, 0)
        )
        p = fisher(len(self.failed), len(self.finished), lost, kept)
        compared = self._replace(others=lost, of_others=lost + kept, p=p)
        return compared if p <= LEVEL and self.failed else None


def fisher(failed: int, finished: int, lost: int, kept: int) -> float:
    """One-sided p of Fisher's exact test: of all that failed (`failed` + `lost`), at least `failed`
    fall among these runs by chance (the upper tail of the hypergeometric distribution)."""
    own, all_failed = failed + finished, failed + lost
    tail = sum(
        comb(own, k) * comb(lost + kept, all_failed - k)
        for k in range(failed, min(own, all_failed) + 1)
    )
    return tail / comb(own + lost + kept, all_failed)


def attempts(runs: pd.DataFrame, kept: pd.DataFrame) -> dict[str, Attempts]:
    """By rung, also of those of which nothing finished. `runs`: all of a bench, whatever became of
    them; `kept`: those that count. A seed that failed and finished later has finished; one that
    still runs, or can be resumed, is neither."""
    students = runs[column(runs, f"tags.{tags.STAGE}").eq("distill")]
    found = {}
    for rung, of in students.groupby(column(students, RUNG_COLUMNS[1])):
        shown = kept[column(kept, RUNG_COLUMNS[1]).eq(rung)]
        finished = frozenset(seeds_of(shown).dropna().astype(int))
        done = of[of["status"].eq("FINISHED")]
        own = _of_recipe(of, shown)
        unfinished, usable = _unfinished(own), _usable(own)
        failed = _seeds(own[~unfinished & ~usable]) - finished - _seeds(own[unfinished])
        count = int(recipes(done).nunique()) if len(done) else 0
        found[str(rung)] = Attempts(finished, frozenset(failed), count)
    return found


def _seeds(runs: pd.DataFrame) -> set[int]:
    return set(seeds_of(runs).dropna().astype(int))


def _unfinished(runs: pd.DataFrame) -> pd.Series:
    """Whether a run still runs, or was stopped and can be resumed."""
    stopped = column(runs, f"tags.{tags.INTERRUPTED}").eq("true")
    return runs["status"].isin(_OPEN) | (runs["status"].eq("KILLED") & stopped)


def _usable(runs: pd.DataFrame) -> pd.Series:
    """Whether a run finished with a test accuracy that one is."""
    test = column(runs, f"metrics.{metrics.TEST_TOP1}").astype(float)
    return runs["status"].eq("FINISHED") & test.between(0.0, 1.0)


def _of_recipe(runs: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """The runs of the configuration that is shown, as far as their tags show which it is."""
    known = set(column(shown, f"tags.{tags.RECIPE}").dropna())
    recipe = column(runs, f"tags.{tags.RECIPE}")
    return runs[recipe.isin(known) | recipe.isna()] if known else runs
