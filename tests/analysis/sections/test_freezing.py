"""What partial freezing saves, on frames written by hand."""

import math

import pandas as pd
import pytest

from analysis.sections import cccp, freezing
from tests.analysis.frames import bench_runs, distill, history, runs


def test_freezing_compares_step_time_memory_and_accuracy():
    means = (("L3", 0.8), ("L4", 0.79))
    kept = runs(*[distill(r, s, mean + s / 100) for r, mean in means for s in (0, 1)])
    points = pd.concat(
        [
            history(
                run,
                stage__step=[(0, 0.0), (1, 1.0), (2, 1.0)],
                stage__student_trainable=[(1, 1.0), (2, share)],
                stage__student_trainable_requested=[(1, 1.0), (2, 1.0)],
                cost__step_seconds=[(0, 9.0), (1, 0.2), (2, seconds)],
                cost__peak_memory_mb=[(0, 500.0), (1, 100.0)],
            )
            for run, share, seconds in (
                ("r0", 1.0, 0.2),
                ("r1", 1.0, 0.2),
                ("r2", 0.5, 0.1),
                ("r3", 0.5, 0.1),
            )
        ]
    )
    found = freezing.freezing_info(kept, points, "toy")
    rows = {row.rung: row for row in found.rows}
    assert rows["L4"].trainable == 0.75
    assert rows["L4"].step_seconds.mean == pytest.approx(0.15)  # of B-Steps alone
    assert rows["L4"].memory_mb == 500.0
    study = freezing.section(bench_runs(kept, points))
    assert "0.75 × the time of a step" in study.sentences[0]
    assert "L4 − L3: −1.00 points" in study.sentences[0]
    assert study.warnings == (
        "L4: 75.00 % of the student moved in the mean, 100.00 % were requested.",
    )


def test_freezing_is_of_rungs_with_a_fusion_alone_and_cccp_of_asib():
    rungs = ("CE", "KD", "L1", "L2", "L3", "L4", "kd", "crd")
    kept = runs(*[distill(rung, 0, 0.8) for rung in rungs])
    points = [
        history(
            f"r{k}",
            stage__step=[(1, 1.0), (2, 1.0)],
            val__top1=[(1, 0.5), (2, 0.6)],
            cost__step_seconds=[(1, 9.0 if rung == "crd" else 0.1)],
        )
        for k, rung in enumerate(rungs)
    ]
    found = freezing.section(bench_runs(kept, *points))
    assert [row[0] for row in found.tables[0].block.rows] == ["L1", "L2", "L3", "L4"]
    assert found.run_ids == ("r2", "r3", "r4", "r5")
    (axes,) = found.figures[0].figure.axes
    assert axes.get_xlim()[1] < 200  # ms: no method of the literature stretches it
    assert [row[0] for row in cccp.section(bench_runs(kept, *points)).tables[0].block.rows] == [
        "CE",
        "KD",
        "L1",
        "L2",
        "L3",
        "L4",
    ]
    only = freezing.section(
        bench_runs(runs(distill("kd", 0, 0.8), distill("CE", 0, 0.8)), *points[:2])
    )
    assert (only.tables, only.figures, only.run_ids) == ((), (), ())


def test_infinite_values_are_no_mean() -> None:
    kept = runs(*[distill(r, s, 0.8 + s / 100) for r in ("L3", "L4") for s in (0, 1)])
    points = [
        history(
            f"r{k}",
            stage__step=[(0, 1.0), (1, 1.0)],
            cost__step_seconds=[(0, math.inf), (1, 0.1)],
            val__top1=[(0, 0.5), (1, math.inf)],
        )
        for k in range(4)
    ]
    info = freezing.freezing_info(kept, pd.concat(points), "toy")
    assert [row.step_seconds.mean for row in info.rows] == pytest.approx([0.1, 0.1])
    assert cccp.section(bench_runs(kept, *points)).tables
