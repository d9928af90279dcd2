"""Student accuracy against the number of labelled images."""

from analysis.report_model import Section
from analysis.sections import across
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import by_labels, labels_of

AXIS = across.Axis(
    "labels",
    "Number of labels",
    "data.train_limit",
    "labels",
    "labelled images",
    "the number of images with a label",
    by_labels,
    lambda kept: float(labels_of(kept).max()),
    (50, 200, 800, 3200),
    logarithmic=True,
)


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    return across.section(bench_runs, AXIS)
