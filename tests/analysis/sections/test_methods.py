"""Methods ranked and compared, on frames written by hand."""

import math
from dataclasses import replace

import pytest

from analysis.sections import methods
from analysis.sections.published import published
from tests.analysis.frames import bench_runs, distill, runs


def test_methods_next_to_the_ladder_have_colours_of_their_own():
    kept = runs(*[distill(m, 0, 0.8) for m in ("ce", "kd", "at")])
    axes = methods.section(bench_runs(kept)).figures[0].figure.axes[0]
    assert len({bar.lines[0].get_color() for bar in axes.containers}) == 3


def test_methods_are_ranked_and_compared_with_kd_after_holm():
    values = {"kd": 0.70, "dkd": 0.75, "at": 0.70, "CE": 0.65}
    wiggle = (0.0, 0.001, -0.001, 0.002)
    rows = [
        distill(m, s, v + s / 100 + wiggle[(s + k) % 4] * (k > 0))
        for k, (m, v) in enumerate(values.items())
        for s in range(4)
    ]
    found = methods.methods_info(bench_runs(runs(*rows)))
    assert [row.method for row in found.rows][0::3] == ["dkd", "CE"]
    assert found.reference == "CE"  # no run has a validation accuracy
    by = {row.method: row for row in found.rows}
    assert by["dkd"].difference.mean == pytest.approx(0.1)
    assert by["dkd"].p < 0.05 < by["at"].p
    assert math.isnan(by["kd"].p)


def test_methods_without_a_reference_are_ranked_and_not_compared():
    found = methods.section(bench_runs(runs(distill("ce", 0, 0.7), distill("ce", 1, 0.72))))
    assert found.sentences[0].startswith("Highest mean test accuracy of 1 method: ce")
    controls = "CE, KD, kd (method), KD_conf, self, stack"
    assert found.sentences[1] == f"Nothing to compare with: none of {controls} has finished."
    assert found.tables[0].block.rows[0][3:5] == ("–", "–")
    assert "Dashed" not in found.figures[0].caption


def test_published_numbers_are_next_to_those_of_their_pair():
    rows = [distill(m, s, 0.7, "literature_resnet8x4") for m in ("ce", "kd") for s in (0, 1)]
    rows += [distill("L2", 0, 0.7, "literature_resnet8x4")]
    found = methods.methods_info(replace(bench_runs(runs(*rows)), bench="literature_resnet8x4"))
    assert {row.method: row.published for row in found.rows if row.method != "L2"} == {
        "ce": 0.7250,
        "kd": 0.7333,
    }
    block = methods.block(found)
    assert block.header[-1] == "published, %"
    assert {row[0]: row[-1] for row in block.rows} == {
        "ce (method)": "72.50",
        "kd (method)": "73.33",
        "L2": "–",
    }
    own = methods.block(methods.methods_info(bench_runs(runs(distill("kd", 0, 0.7)))))
    assert "published, %" not in own.header


def test_published_numbers_are_next_to_their_own_network_alone():
    assert published("sota_mobilenet_v2", "kd", {"mobilenet_v2_half"}) == 0.6735
    assert math.isnan(published("sota_mobilenet_v2", "kd", {"mobilenet_v2"}))
    assert math.isnan(published("sota_resnet8x4", "kd", {"resnet8x4", "resnet20"}))
    assert math.isnan(published("sota_other", "kd"))
    rows = [distill("kd", s, 0.7, "sota_resnet8x4") for s in (0, 1)]
    found = runs(*rows).assign(**{"tags.student": "resnet20"})
    info = methods.methods_info(replace(bench_runs(found), bench="sota_resnet8x4"))
    assert all(math.isnan(row.published) for row in info.rows)


def test_a_rung_alone_has_nothing_to_be_compared_with():
    found = methods.section(bench_runs(runs(*(distill("L3", s, 0.5) for s in (0, 1)))))
    assert found.sentences == (
        "Highest mean test accuracy of 1 method: L3, 50.00 % at every seed (n = 2).",
        "Nothing to compare with: none of CE, KD, kd (method), KD_conf, self, stack has finished.",
    )
    (drawing,) = found.figures
    assert "Dashed" not in drawing.caption
    (gap,) = found.gaps
    assert gap.what == (
        "baselines that have not finished (with default weights): ce, kd, fitnet, at, crd, dkd, "
        "dist, kd_ls"
    )
