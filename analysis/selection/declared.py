"""The primary claim of a bench: as its study declared it at launch, or as it is chosen now."""

import json
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.filters import PRIMARY

EACH = "each"  # control: better than each of the controls


class Declared(NamedTuple):
    """A claim: a rung against these controls (none named: all that ran), the margin of equivalence
    as a fraction, and the seeds. `at` is when it was declared, None where it is chosen at analysis;
    `beforehand`: whether it was fixed before the results, by a declaration or by default."""

    rung: str
    controls: tuple[str, ...] = ()
    margin: float | None = None
    seeds: tuple[int, ...] = ()
    at: pd.Timestamp | None = None
    beforehand: bool = True

    def controls_of(self, rung: str) -> tuple[str, ...]:
        """The controls that the claim of a rung names; empty: all that ran."""
        return self.controls if rung == self.rung else ()

    @property
    def when(self) -> str:
        """`declared at launch (2026-11-28)`, or `chosen at analysis`."""
        if self.at is not None:
            return f"declared at launch ({self.at:%Y-%m-%d})"
        return "chosen at analysis" + " (the default)" * self.beforehand


def as_tag(claim: dict[str, object]) -> str:
    """The value of the tag `claim` of a study's run."""
    return json.dumps(claim, sort_keys=True)


def _controls(control: str | list[str]) -> tuple[str, ...]:
    return () if control == EACH else (control,) if isinstance(control, str) else tuple(control)


def declared(bench_runs: BenchRuns) -> Declared:
    """The first claim that a study of the bench declared; another rung that the user names, or no
    declaration, makes it one that is chosen at analysis."""
    claims = column(bench_runs.runs, f"tags.{tags.CLAIM}")
    first = bench_runs.runs[claims.notna()].sort_values("start_time").head(1)
    chosen = bench_runs.primary
    for _, run in first.iterrows():
        found = json.loads(run[f"tags.{tags.CLAIM}"])
        claim = Declared(
            str(found["rung"]),
            _controls(found.get("control", EACH)),
            None if found.get("margin") is None else float(found["margin"]) / 100,
            tuple(found.get("seeds", ())),
            run["start_time"],
        )
        if chosen in (None, claim.rung):
            return claim
    return Declared(chosen or PRIMARY, beforehand=chosen in (None, PRIMARY))
