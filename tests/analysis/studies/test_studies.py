"""Each analysis on frames typed by hand: the numbers, the gaps, and what is drawn."""

import math
import re

import pandas as pd
import pytest

from analysis.evidence import Evidence
from analysis.stats import mean_interval
from analysis.studies import (
    beta,
    cccp,
    freezing,
    health,
    information_plane,
    ladder,
    methods,
    overlap,
    teacher_adaptation,
)
from pipeline import names
from tests.analysis.frames import distill, history, params, runs

EMPTY = runs(distill("L3", 0, None, status="RUNNING"))
TEACHERS = runs({"tags.stage": "finetune", "tags.bench": "toy"})


def evidence(frame: pd.DataFrame, *points: pd.DataFrame) -> Evidence:
    """`points` are the histories; only what is asked for is handed out."""
    known = pd.concat([history("none"), *points])

    def histories(run_ids, metrics):
        asked = known["run_id"].isin(list(run_ids)) & known["metric"].isin(list(metrics))
        return known[asked]

    last = known.groupby(["run_id", "metric"])["value"].last().unstack()
    last = last.reindex(frame["run_id"]).set_axis(frame.index).add_prefix("metrics.")
    return Evidence("toy", frame.combine_first(last), histories)


@pytest.mark.parametrize(
    "one", [ladder, methods, beta, information_plane, cccp, teacher_adaptation, freezing, overlap]
)
@pytest.mark.parametrize("there", [EMPTY, TEACHERS], ids=["running", "teachers"])
def test_nothing_finished_is_said_with_a_command(one, there):
    found = one.study(evidence(there))
    assert not found.tables
    assert not found.drawings
    assert found.gaps
    assert all("python -m pipeline distill bench=toy" in gap.command for gap in found.gaps)


def with_beta(value: str, seed: int, val: float, test: float, **more) -> dict:
    return distill(
        "L1", seed, test, **params(method__ib_beta=value, method__bottleneck=True),
        **{f"metrics.{names.BEST_VAL_TOP1}": val, f"metrics.{names.RATE}": 3.0, **more},
    )  # fmt: skip


def test_beta_recommends_the_largest_within_one_standard_error():
    rows = [
        with_beta(b, s, v + s / 100, 0.8)
        for b, v in {"0": 0.90, "0.001": 0.905, "0.01": 0.904, "0.1": 0.5}.items()
        for s in (0, 1, 2)
    ]
    found = beta.beta_info(runs(*rows), "toy")
    assert [row.beta for row in found.rows] == [0.0, 0.001, 0.01, 0.1]
    assert found.recommended == 0.01
    assert found.rows[0].validation.mean == pytest.approx(0.91)
    assert found.rows[0].rate.mean == 3.0
    assert found.rows[0].distortion.n == 0
    assert not found.drawn


def test_a_beta_is_not_recommended_for_the_seed_that_it_lacks():
    values = {"0": (0.819, 0.824, 0.811), "0.001": (0.823, 0.827, 0.806), "0.01": (0.822, 0.826)}
    rows = [with_beta(b, s, v, 0.8) for b, of in values.items() for s, v in enumerate(of)]
    said = beta.study(evidence(runs(*rows))).sentences[0]
    assert said.startswith("Recommended β: 0.01, the largest within one standard error of the best")
    assert "(0.001, 82.50 [" in said  # 0.01 is the best only where the bad seed is missing
    assert said.endswith("2 seeds that every β has.")
    rows = [with_beta("0", 0, 0.8, 0.8), with_beta("0.001", 1, 0.9, 0.8)]
    assert beta.beta_info(runs(*rows), "toy").recommended is None
    assert "No β is recommended" in beta.study(evidence(runs(*rows))).sentences[0]


def test_beta_zero_stands_apart_on_a_logarithmic_axis():
    x = beta.positions([0.0, 1e-3, 1e-1])
    assert x == pytest.approx([-4.5, -3.0, -1.0])
    rows = [with_beta(b, 0, 0.9, 0.8) for b in ("0", "0.001", "0.1")]
    lowest = beta.draw(beta.beta_info(runs(*rows), "toy")).axes[-1]
    assert [tick.get_text() for tick in lowest.get_xticklabels()] == ["0", "0.001", "0.1"]


def test_rate_and_distortion_have_axes_of_their_own():
    logged = {f"metrics.{names.DISTORTION}": 0.05}
    rows = [with_beta(b, s, 0.9, 0.8, **logged) for b in ("0", "0.01") for s in (0, 1)]
    axes = beta.draw(beta.beta_info(runs(*rows), "toy")).axes
    assert [one.get_ylabel() for one in axes] == ["top-1, %", "rate, nats", "distortion, nats"]
    assert [len(one.containers) for one in axes] == [2, 1, 1]
    (low, high), (small, large) = (one.get_ylim() for one in axes[1:])
    assert small < 0.05 < large < low < 3.0 < high
    unmeasured = [with_beta(b, 0, 0.9, 0.8) for b in ("0", "0.01")]
    axes = beta.draw(beta.beta_info(runs(*unmeasured), "toy")).axes
    assert [one.get_ylabel() for one in axes] == ["top-1, %", "rate, nats"]


def test_one_seed_has_no_standard_error_and_so_no_recommendation():
    rows = [with_beta(b, 0, v, 0.8) for b, v in {"0": 0.9, "0.01": 0.92, "0.1": 0.92}.items()]
    assert beta.beta_info(runs(*rows), "toy").recommended is None
    found = beta.study(evidence(runs(*rows)))
    assert found.sentences[0] == (
        "No β is recommended: 1 seed, so that there is no standard error. The highest by "
        "validation is β = 0.1 (92.00 %), no more than that."
    )
    assert not any("*" in row[0] for row in found.tables[0].block.rows)
    assert "Dotted" not in found.drawings[0].caption


def test_intervals_over_beta_are_drawn_and_the_caption_says_of_how_many():
    rows = [with_beta(b, s, 0.9, 0.8 + s / 50) for b in ("0", "0.01") for s in (0, 1, 2)]
    rows.append(with_beta("0.1", 0, 0.9, 0.8))
    found = beta.study(evidence(runs(*rows)))
    left = found.drawings[0].figure.axes[0]
    bars = left.containers[1].lines[2][0].get_segments()  # of the test accuracies
    info = beta.beta_info(runs(*rows), "toy")
    expected = [(100 * row.test.low, 100 * row.test.high) for row in info.rows[:2]]
    assert [tuple(bar[:, 1]) for bar in bars[:2]] == [pytest.approx(pair) for pair in expected]
    assert bars[2][0, 1] == bars[2][1, 1]  # one seed has no bar
    assert "n = 3 (β = 0), 3 (β = 0.01), 1 (β = 0.1)" in found.drawings[0].caption
    assert any(line.get_linewidth() == 3 for line in left.lines)  # between β = 0 and the others


def test_beta_takes_no_run_that_differs_in_more():
    rows = [with_beta(b, 0, 0.9, 0.8) for b in ("0.001", "0.01")]
    rows.append(with_beta("0.1", 0, 0.99, 0.99, **params(method__tau=2)))
    found = beta.study(evidence(runs(*rows)))
    assert [row[0].split()[0] for row in found.tables[0].block.rows] == ["0.001", "0.01"]
    assert any("β = 0 is not there" in gap.what for gap in found.gaps)
    assert found.gaps[-1].command.endswith("cfg=L1 seed=0 method.ib_beta=0")


def test_information_is_entropy_less_cross_entropy_and_only_of_common_steps():
    labels = pd.Series({"r0": "L1", "r1": "L1", "r2": "L2"})
    plane = {"bottleneck__label_entropy": [(0, 2.0), (1, 2.0)]}
    points = pd.concat([
        history("r0", bottleneck__val_rate=[(0, 1.0), (1, 3.0)],
                bottleneck__val_ce=[(0, 1.5), (1, 0.5)], **plane),
        history("r1", bottleneck__val_rate=[(1, 5.0)], bottleneck__val_ce=[(1, 0.7)], **plane),
        history("r2", bottleneck__val_rate=[(0, 9.0)], bottleneck__val_ce=[(0, 1.9)], **plane),
    ])  # fmt: skip
    found = information_plane.plane_info(labels, points, "toy")
    assert [(path.label, path.n, path.front) for path in found.paths] == [
        ("L1", 2, True), ("L2", 1, False),
    ]  # fmt: skip
    assert found.paths[0].points[0] == pytest.approx((4.0, 1.4))
    assert found.entropy == 2.0
    rate, information = found.paths[0].rate, found.paths[0].information
    assert rate == mean_interval([3.0, 5.0])
    assert information == pytest.approx(mean_interval([1.5, 1.3]))
    axes = information_plane.draw(found).axes[0]
    plain = [line for line in axes.lines if line.get_marker() == "None"]
    assert len(plain) == 4  # two paths, the front, H(Y)
    bars = [bar.get_segments()[0] for bar in axes.containers[0].lines[2]]
    assert tuple(bars[0][:, 0]) == pytest.approx((rate.low, rate.high))
    assert tuple(bars[1][:, 1]) == pytest.approx((information.low, information.high))
    assert "n = 2 (L1), 1 (L2)" in information_plane._caption(found)
    assert axes.get_xlim()[1] < 10  # the interval of two seeds does not flatten the rest


def test_stability_in_closed_form():
    assert cccp.late_spread([0.1] * 8 + [0.5, 0.7]) == pytest.approx(math.sqrt(0.02))
    assert math.isnan(cccp.late_spread([0.5]))
    assert cccp.epochs_to([0.1, 0.949, 0.96, 1.0]) == 3
    kept = runs(distill("L2", 0, 0.5, **params(method__num_stages=4)), distill("L1", 0, 0.5))
    steps = {"stage__step": [(0, 0.0), (1, 1.0), (2, 1.0)]}
    points = pd.concat([
        history("r0", val__top1=[(1, 0.5), (2, 0.6)], stage__J=[(0, 3.0), (1, 2.0), (2, 2.5)],
                **steps),
        history("r1", val__top1=[(1, 0.5), (2, 0.5)], **steps),
    ])  # fmt: skip
    found = cccp.stability_info(kept, points, "toy")
    with_cccp = next(row for row in found.rows if row.rung == "L2")
    assert with_cccp.objective == (((1.0, 3.0), (2.0, 2.0), (3.0, 2.5)),)
    assert with_cccp.rises == 0.5
    assert (with_cccp.stages, with_cccp.reached) == (4, {0: 2.0})
    assert found.pair == ("L2", "L1")
    assert "L2 (with CCCP) − L1 (without)" in cccp.study(evidence(kept, points)).sentences[0]


def test_ten_teachers_before_and_after():
    logged = {f"metrics.teacher{k}/top1_before": 0.5 for k in range(10)}
    kept = runs(*[distill("L3", s, 0.6 + s / 10, gain=s / 100, **logged) for s in range(4)])
    points = pd.concat([
        history(f"r{s}", **{
            f"teacher{k}__top1_{when}": [(0, base + k / 100), (4, base + k / 100 + 0.02)]
            for k in range(10) for when, base in (("before", 0.5), ("after", 0.53))
        }) for s in range(4)
    ])  # fmt: skip
    found = teacher_adaptation.adaptation_info(kept, points, "toy")
    assert [one.teacher for one in found.teachers] == list(range(10))
    assert found.teachers[9].before == pytest.approx((0.59, 0.61))
    assert found.teachers[9].change.mean == pytest.approx(0.05)
    assert found.correlation == pytest.approx(1.0)
    three = teacher_adaptation.adaptation_info(kept.head(3), points, "toy")
    assert math.isnan(three.correlation), "three runs always lie close to some line"


def test_a_correlation_has_an_interval():
    gains = (0.0, 0.01, 0.02, 0.03, 0.01)
    kept = runs(*[distill("L2", s, 0.6 - g + s / 1000, gain=g) for s, g in enumerate(gains)])
    said = teacher_adaptation.study(evidence(kept)).sentences[-1]
    assert "correlation −0.99 [−1.00, −0.88] over 5 runs" in said


def test_freezing_compares_step_time_memory_and_accuracy():
    means = (("L3", 0.8), ("L4", 0.79))
    kept = runs(*[distill(r, s, mean + s / 100) for r, mean in means for s in (0, 1)])
    points = pd.concat([
        history(run, stage__step=[(0, 0.0), (1, 1.0), (2, 1.0)],
                stage__student_trainable=[(1, 1.0), (2, share)],
                stage__student_trainable_requested=[(1, 1.0), (2, 1.0)],
                cost__step_seconds=[(0, 9.0), (1, 0.2), (2, seconds)],
                cost__peak_memory_mb=[(0, 500.0), (1, 100.0)])
        for run, share, seconds in (("r0", 1.0, 0.2), ("r1", 1.0, 0.2), ("r2", 0.5, 0.1),
                                    ("r3", 0.5, 0.1))
    ])  # fmt: skip
    found = freezing.freezing_info(kept, points, "toy")
    rows = {row.rung: row for row in found.rows}
    assert rows["L4"].trainable == 0.75
    assert rows["L4"].step_seconds.mean == pytest.approx(0.15)  # of B-Steps alone
    assert rows["L4"].memory_mb == 500.0
    assert found.difference.mean == pytest.approx(-0.01)
    study = freezing.study(evidence(kept, points))
    assert "0.75 × the time of a step" in study.sentences[0]
    assert study.warnings == (
        "L4: 75.00 % of the student moved in the mean, 100.00 % were asked for.",
    )


def test_methods_beside_the_ladder_have_colours_of_their_own():
    kept = runs(*[distill(m, 0, 0.8) for m in ("ce", "kd", "at")])
    axes = methods.study(evidence(kept)).drawings[0].figure.axes[0]
    assert len({bar.lines[0].get_color() for bar in axes.containers}) == 3


def test_freezing_is_of_rungs_with_a_fusion_alone_and_cccp_of_asib():
    rungs = ("CE", "KD", "L1", "L2", "L3", "L4", "kd", "crd")
    kept = runs(*[distill(rung, 0, 0.8) for rung in rungs])
    points = [
        history(f"r{k}", stage__step=[(1, 1.0), (2, 1.0)], val__top1=[(1, 0.5), (2, 0.6)],
                cost__step_seconds=[(1, 9.0 if rung == "crd" else 0.1)])
        for k, rung in enumerate(rungs)
    ]  # fmt: skip
    found = freezing.study(evidence(kept, *points))
    assert [row[0] for row in found.tables[0].block.rows] == ["L1", "L2", "L3", "L4"]
    assert found.run_ids == ("r2", "r3", "r4", "r5")
    (axes,) = found.drawings[0].figure.axes
    assert axes.get_xlim()[1] < 200  # ms: no method of the literature stretches it
    assert [row[0] for row in cccp.study(evidence(kept, *points)).tables[0].block.rows] == [
        "CE", "KD", "L1", "L2", "L3", "L4",
    ]  # fmt: skip
    only = freezing.study(evidence(runs(distill("kd", 0, 0.8), distill("CE", 0, 0.8)), *points[:2]))
    assert (only.tables, only.drawings, only.run_ids) == ((), (), ())


def test_no_panel_is_drawn_of_teachers_that_do_not_adapt():
    kept = runs(*[distill("L2", s, 0.6 + s / 100, gain=s / 100) for s in range(2)])
    found = teacher_adaptation.study(evidence(kept))
    assert found.sentences[0] == "No run adapts its teachers (2 finished runs looked at)."
    (axes,) = found.drawings[0].figure.axes
    assert axes.get_ylabel() == "student, test top-1, %"
    assert "A-Step)" not in axes.get_xlabel()
    assert found.drawings[0].caption.startswith("Each run's synergy gain")
    logged = {"metrics.teacher0/top1_before": 0.5}
    point = history("r0", teacher0__top1_before=[(0, 0.5)], teacher0__top1_after=[(0, 0.6)])
    adapted = teacher_adaptation.study(evidence(runs(distill("L3", 0, 0.6, **logged)), point))
    (axes,) = adapted.drawings[0].figure.axes
    assert axes.get_ylabel() == "teacher, validation top-1, %"
    assert adapted.drawings[0].caption.startswith("Validation accuracy before")


def test_j_has_an_interval_at_every_step_that_all_seeds_have():
    kept = runs(*[distill("L2", s, 0.5, **params(method__num_stages=4)) for s in range(3)])
    paths = ([3.0, 2.0, 1.0], [3.2, 2.4, math.inf], [3.4, 1.9, 1.2])
    points = [
        history(f"r{s}", stage__step=[(0, 0.0), (1, 1.0), (2, 0.0)], val__top1=[(1, 0.5)],
                stage__J=list(enumerate(path)))
        for s, path in enumerate(paths)
    ]  # fmt: skip
    found = cccp.study(evidence(kept, *points)).drawings[0]
    (axes,) = found.figure.axes
    ends = axes.containers[0].lines[2][0].get_segments()
    expected = [mean_interval(values) for values in ([3.0, 3.2, 3.4], [2.0, 2.4, 1.9])]
    assert [tuple(bar[:, 1]) for bar in ends] == [pytest.approx((i.low, i.high)) for i in expected]
    assert "means with 95 % t-intervals" in found.caption
    assert found.caption.endswith("n = 3 for each.")


def test_no_interval_of_an_accuracy_leaves_0_to_100():
    high = (0.96, 0.999, 1.0)
    rows = [
        with_beta(b, s, test, test, seconds=9.0, **{"tags.rung": rung, "tags.overlap": "50"})
        for rung, b in (("L1", "0"), ("L1", "0.01"), ("L4", "0.01"))
        for s, test in enumerate(high)
    ]
    points = [history(f"r{k}", stage__step=[(1, 1.0)], cost__step_seconds=[(1, 0.1)])
              for k in range(9)]  # fmt: skip
    assert mean_interval(high).high > 1
    for one in (ladder, methods, beta, freezing, overlap):
        found = one.study(evidence(runs(*rows), *points))
        cells = [c for table in found.tables for row in table.block.rows for c in row]
        bounds = [b for c in cells for b in re.findall(r"\[(\S+), (\S+)\]", c) if "n=" not in c]
        assert bounds, one
        assert all(0 <= float(low) < float(top) <= 100 for low, top in bounds), one
        bars = [
            bar for axes in found.drawings[0].figure.axes for held in axes.containers
            for lines in held.lines[2] for bar in lines.get_segments()
        ]  # fmt: skip
        assert bars, one
        assert max(bar[:, 0 if one is methods else 1].max() for bar in bars) <= 100 + 1e-9, one


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


def test_methods_are_ranked_and_compared_with_kd_after_holm():
    values = {"kd": 0.70, "dkd": 0.75, "at": 0.70, "CE": 0.65}
    wiggle = (0.0, 0.001, -0.001, 0.002)
    rows = [
        distill(m, s, v + s / 100 + wiggle[(s + k) % 4] * (k > 0))
        for k, (m, v) in enumerate(values.items()) for s in range(4)
    ]  # fmt: skip
    found = methods.methods_info(runs(*rows), "toy")
    assert [row.method for row in found.rows][0::3] == ["dkd", "CE"]
    assert found.reference == "kd"
    by = {row.method: row for row in found.rows}
    assert by["dkd"].difference.mean == pytest.approx(0.0505)
    assert by["dkd"].p < 0.05 < by["at"].p
    assert math.isnan(by["kd"].p)


def test_methods_without_a_reference_are_ranked_and_not_compared():
    found = methods.study(evidence(runs(distill("ce", 0, 0.7), distill("ce", 1, 0.72))))
    assert found.sentences[0].startswith("Highest mean test accuracy of 1 method: ce")
    assert found.sentences[1] == "Nothing to compare with: none of kd, KD, CE has finished."
    assert found.tables[0].block.rows[0][3:5] == ("–", "–")
    assert "Dashed" not in found.drawings[0].caption


def test_published_numbers_stand_beside_those_of_their_pair():
    rows = [distill(m, s, 0.7, "literature_resnet8x4") for m in ("ce", "kd") for s in (0, 1)]
    rows += [distill("L2", 0, 0.7, "literature_resnet8x4")]
    found = methods.methods_info(runs(*rows), "literature_resnet8x4")
    assert {row.method: row.published for row in found.rows if row.method != "L2"} == {
        "ce": 0.7250, "kd": 0.7333
    }  # fmt: skip
    block = methods.block(found)
    assert block.header[-1] == "published, %"
    assert {row[0]: row[-1] for row in block.rows} == {"ce": "72.50", "kd": "73.33", "L2": "–"}
    own = methods.block(methods.methods_info(runs(distill("kd", 0, 0.7)), "toy"))
    assert "published, %" not in own.header


def test_a_rung_alone_has_nothing_to_be_compared_with():
    found = methods.study(evidence(runs(*(distill("L3", s, 0.5) for s in (0, 1)))))
    assert found.sentences == (
        "Highest mean test accuracy of 1 method: L3, 50.00 [50.00, 50.00] % (n = 2).",
        "Nothing to compare with: none of kd, KD, CE has finished.",
    )
    (drawing,) = found.drawings
    assert "Dashed" not in drawing.caption
    assert [gap.what for gap in found.gaps] == [
        "baselines that have not finished: ce, kd, fitnet, at, crd, dkd, dist, kd_ls"
    ]


def test_health_lists_tags_values_and_what_the_store_shows():
    frame = runs(
        distill(
            "L3", 0, 0.5,
            **{"tags.health": "gate_never_open, kd_small", "metrics.test/reads": 2.0},
        ),
        distill("L3", 1, 0.5, **{"metrics.health/sigma_collapsed": 1.0}),
        distill("L3", 2, None, status="FAILED", **{"metrics.train/loss/total": math.inf}),
    )  # fmt: skip
    found = {one.warning: one.run_ids for one in health.health_info(frame)}
    assert found == {
        "gate_never_open": ("r0",), "kd_small": ("r0",), "sigma_collapsed": ("r1",),
        "the test split was read more than once": ("r0",), "a value is infinite": ("r2",),
        "failed": ("r2",),
    }  # fmt: skip


def test_runs_of_one_name_are_told_apart_in_the_health_list():
    def ill(name: str, key: str | None) -> dict:
        tags = {"tags.health": "non_finite", "tags.run_key": key}
        return distill("L3", 0, 0.5, **tags) | {"name": name}

    frame = runs(
        ill("a", "1111111111"),
        ill("b", "2222222222"),
        ill("b", "3333333333"),
        ill("c", "4444444444"),
        ill("c", "4444444444"),
        ill("d", None),
        ill("d", None),
    )
    (only,) = health.health_info(frame)  # fmt: skip
    assert only.runs == (
        "a", "b (key 222222)", "b (key 333333)", "c (run r3)", "c (run r4)", "d (run r5)",
        "d (run r6)",
    )  # fmt: skip


def test_a_test_accuracy_at_two_steps_is_a_warning_whatever_the_run_says_of_its_readings():
    kept = runs(*(distill("L3", s, None, **{"metrics.test/reads": 1.0}) for s in (0, 1)))
    points = [history("r0", test__top1=[(1, 0.5), (2, 0.6)]), history("r1", test__top1=[(2, 0.6)])]
    found = health.study(evidence(kept, *points))
    assert found.warnings == ("the test split was read more than once: 1 run",)
    assert found.run_ids == ("r0",)


def test_health_says_that_there_is_nothing():
    quiet = health.study(evidence(runs(distill("CE", 0, 0.5))))
    assert quiet.sentences == ("No warning in 1 run.",)
    assert quiet.notes == ("No run logged health values of its own.",)


def test_ladder_names_the_seeds_that_are_missing_with_what_was_typed():
    typed = "cfg={} bench=toy data.train_limit=200 seed={}"
    rows = [
        distill(r, s, 0.5 + s / 100, **{"params.overrides": typed.format(r, s)})
        for r in ("CE", "KD", "L0", "L1", "L2", "L3", "L4") for s in (0, 1, 2)
        if (r, s) != ("L4", 2)
    ]  # fmt: skip
    gaps = ladder.study(evidence(runs(*rows))).gaps
    assert [gap.what for gap in gaps] == ["L4 has no seed 2"]
    assert gaps[0].command == (
        "python -m pipeline distill bench=toy data.train_limit=200 cfg=L4 seed=2"
    )


def commands(*rows: dict) -> str:
    found = evidence(runs(*rows).assign(experiment="other"))
    return "\n".join(g.command for one in (ladder, methods) for g in one.study(found).gaps)


def test_a_gap_is_filled_in_the_experiment_that_has_it_with_the_options_of_its_method():
    typed = {"params.overrides": "bench=toy method.ib_beta=1e-3 cfg=L2 seed=0"}
    said = commands(distill("L2", 0, 0.5, **typed))
    assert "method.ib_beta=1e-3 runtime.experiment=other cfg=L4 seed=0" in said
    assert "bench=toy runtime.experiment=other method=$method seed=0" in said
    typed = {"params.overrides": "method=kd method.weight=0.5 runtime.experiment=other seed=0"}
    said = commands(distill("kd", 0, 0.5, **typed))
    assert "method.weight" not in said
    assert "bench=toy runtime.experiment=other cfg=L4 seed=0" in said
    assert said.count("runtime.experiment") == said.count("python -m")


def test_what_a_study_varies_is_no_option_of_the_rungs_that_are_missing():
    typed = "bench=toy budget=short method.ib_beta={} cfg=L2 seed={}"
    rows = [
        distill("L2", s, 0.5, **params(overrides=typed.format(b, s), method__ib_beta=b))
        for b in ("0.0", "0.01", "0.1") for s in (0, 1)
    ]  # fmt: skip
    by = {gap.what: gap.command for gap in ladder.study(evidence(runs(*rows))).gaps}
    assert by["L4 has not finished"] == (
        "python -m pipeline distill bench=toy budget=short cfg=L4 seed=0"
    )
    assert by["L2 has no seed 2"] == (  # of the configuration that is shown
        "python -m pipeline distill bench=toy budget=short method.ib_beta=0.1 cfg=L2 seed=2"
    )
