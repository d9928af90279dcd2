"""Accuracy against the overlap of the teachers, on frames typed by hand."""

import pytest

from analysis.studies import overlap
from tests.analysis.frames import distill, evidence, runs


def test_overlap_pairs_within_each_overlap():
    rows = [
        distill(r, s, 0.5 + o / 1000 + (r == "L4") * 0.02, **{"tags.overlap": str(o)})
        for r in ("KD", "L4") for o in (0, 50) for s in (0, 1)
    ]  # fmt: skip
    found, used = overlap.overlap_info(evidence(runs(*rows)).finished, "toy")
    assert [(row.rung, row.overlap, row.test.n) for row in found.rows] == [
        ("KD", 0.0, 2), ("KD", 50.0, 2), ("L4", 0.0, 2), ("L4", 50.0, 2),
    ]  # fmt: skip
    assert found.rows[3].vs_kd.mean == pytest.approx(0.02)
    assert len(used) == 8
    gaps = overlap.study(evidence(runs(*rows))).gaps
    assert {gap.what for gap in gaps} == {f"CE at {o} % overlap has not finished" for o in (0, 50)}
