"""Accuracy against the overlap of the teachers, on frames written by hand."""

import pytest

from analysis.sections import overlap
from tests.analysis.frames import bench_runs, distill, runs


def test_overlap_pairs_within_each_overlap():
    rows = [
        distill(r, s, 0.5 + o / 1000 + (r == "L4") * 0.02, **{"tags.overlap": str(o)})
        for r in ("KD", "L4")
        for o in (0, 50)
        for s in (0, 1)
    ]
    found, used = overlap.overlap_info(bench_runs(runs(*rows)).finished, "toy")
    assert [(row.rung, row.overlap, row.test.n) for row in found.rows] == [
        ("KD", 0.0, 2),
        ("KD", 50.0, 2),
        ("L4", 0.0, 2),
        ("L4", 50.0, 2),
    ]
    assert found.rows[3].vs_kd.mean == pytest.approx(0.02)
    assert len(used) == 8
    gaps = overlap.section(bench_runs(runs(*rows))).gaps
    assert {gap.what for gap in gaps} == {f"CE at {o} % overlap has not finished" for o in (0, 50)}
