"""Student accuracy against the overlap of the teachers' classes."""

import pandas as pd

from analysis import tags
from analysis.report_model import Section
from analysis.runs import column
from analysis.sections import across
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import ALONE, by_overlap

_FULL = 100.0  # of teachers that were trained on all classes; their runs have no tag


def _overlap(kept: pd.DataFrame) -> float:
    tagged = column(kept, f"tags.{tags.OVERLAP}").dropna()
    return float(tagged.iloc[0]) if len(tagged) else _FULL


AXIS = across.Axis(
    "overlap",
    "Teacher overlap",
    "overlap",
    "% overlap",
    "overlap of the classes, %",
    "the share of the classes that all teachers know",
    by_overlap,
    _overlap,
    (0, 50, 100),
    full=_FULL,
    same=ALONE,
)


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    return across.section(bench_runs, AXIS)
