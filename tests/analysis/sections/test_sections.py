"""What every analysis does with nothing, and at the ends of a scale, on frames written by hand."""

import re

import pytest

from analysis.sections import (
    beta,
    cccp,
    freezing,
    information_plane,
    ladder,
    methods,
    overlap,
    room,
    teacher_adaptation,
)
from analysis.stats import mean_interval
from pipeline.config.sweep import expand
from tests.analysis.frames import bench_runs, distill, history, runs, with_beta

EMPTY = runs(distill("L3", 0, None, status="RUNNING"))
TEACHERS = runs({"tags.stage": "finetune", "tags.bench": "toy"})


@pytest.mark.parametrize(
    "one",
    [ladder, methods, beta, information_plane, cccp, teacher_adaptation, freezing, overlap, room],
)
@pytest.mark.parametrize("there", [EMPTY, TEACHERS], ids=["running", "teachers"])
def test_nothing_finished_is_reported_with_a_command(one, there):
    found = one.section(bench_runs(there))
    assert not found.tables
    assert not found.figures
    assert found.gaps
    assert all(
        gap.command.startswith("python -m pipeline distill -m bench=toy") for gap in found.gaps
    )
    assert all(len(expand(gap.command.split()[5:])) >= 3 for gap in found.gaps)


def test_no_interval_of_an_accuracy_leaves_0_to_100():
    high = (0.96, 0.999, 1.0)
    rows = [
        with_beta(b, s, test, test, seconds=9.0, **{"tags.rung": rung, "tags.overlap": "50"})
        for rung, b in (("L1", "0"), ("L1", "0.01"), ("L4", "0.01"))
        for s, test in enumerate(high)
    ]
    points = [
        history(f"r{k}", stage__step=[(1, 1.0)], cost__step_seconds=[(1, 0.1)]) for k in range(9)
    ]
    assert mean_interval(high).high > 1
    for one in (ladder, methods, beta, freezing, overlap):
        found = one.section(bench_runs(runs(*rows), *points))
        cells = [
            cell
            for table in found.tables
            for row in table.block.rows
            for name, cell in zip(table.block.header, row, strict=True)
            if "rate, nats" not in name
        ]
        bounds = [b for c in cells for b in re.findall(r"\[(\S+), (\S+)\]", c) if "n=" not in c]
        assert bounds, one
        assert all(0 <= float(low) < float(top) <= 100 for low, top in bounds), one
        bars = [
            bar
            for axes in found.figures[0].figure.axes
            for held in axes.containers
            for lines in held.lines[2]
            for bar in lines.get_segments()
        ]
        assert bars, one
        assert max(bar[:, 0 if one is methods else 1].max() for bar in bars) <= 100 + 1e-9, one
