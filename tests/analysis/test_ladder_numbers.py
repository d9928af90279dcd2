"""Exact numbers of the ladder and the teachers."""

import math

import pandas as pd
import pytest
from scipy import stats

from analysis.ladder_numbers import (
    METHOD_ORDER,
    RUNG_ORDER,
    best_control,
    fused,
    label_of,
    ladder_table,
    of_asib,
    rung_order,
    teachers_table,
    with_epoch_costs,
)
from analysis.selection.by_seed import logged_by_seed
from analysis.stats import NO_INTERVAL
from tests.analysis.frames import distill, history, runs
from trainers import metrics
from trainers.methods import METHODS


@pytest.fixture(scope="module")
def kept() -> pd.DataFrame:
    return runs(
        distill("L3", 1, 0.62, seconds=30.0, speed=500.0, synergy=0.7, gain=0.01),
        distill("L3", 2, 0.68, seconds=50.0, speed=700.0, synergy=0.8, gain=math.nan),
        distill("L3", 7, 0.90, synergy=math.nan),
        distill("CE", 0, 0.50, seconds=10.0, memory=100.0),
        distill("CE", 1, 0.52, seconds=20.0, memory=300.0),
        distill("CE", 2, 0.54),
        distill("KD", 2, 0.60),
        distill("dkd", 9, 0.70),
        distill("L3", 0, 0.30, bench="other"),
    )


@pytest.fixture(scope="module")
def rows(kept) -> dict:
    return {(row.bench, row.rung): row for row in ladder_table(kept).rows}


def test_order_is_the_ladders_then_by_name():
    assert rung_order(["dkd", "L4", "CE_matched", "KD", "L10", "L0", "CE"]) == [
        "CE",
        "KD",
        "L0",
        "L4",
        "CE_matched",
        "L10",
        "dkd",
    ]


def test_methods_of_the_literature_stand_after_the_ladder():
    rungs = ["own", "stack", "kd_ls", "kd", "self", "side_cccp_ppf", "ce", "KD", "CE", "crd"]
    want = ["CE", "KD", "self", "stack", "side_cccp_ppf", "ce", "kd", "crd", "kd_ls", "own"]
    assert rung_order(rungs) == want
    assert set(METHOD_ORDER) == set(METHODS) - {"asib"}


def test_rows_are_ordered_by_bench_and_rung(rows):
    assert [rung for _, rung in rows] == ["L3", "CE", "KD", "L3", "dkd"]
    assert [bench for bench, _ in rows] == ["other", *["toy"] * 4]


def test_intervals_of_a_row(rows):
    row = rows["toy", "L3"]
    assert row.seeds == (1, 2, 7)
    half = stats.t.ppf(0.975, 2) * pd.Series([0.62, 0.68, 0.90]).sem()
    mean = (0.62 + 0.68 + 0.90) / 3
    assert mean + half > 1  # no accuracy is there
    assert row.test == pytest.approx((3, mean, mean - half, 1.0))
    # Paired on seeds 1 and 2 alone: differences 0.10 and 0.14.
    half = stats.t.ppf(0.975, 1) * 0.02
    assert row.vs_ce == pytest.approx((2, 0.12, 0.12 - half, 0.12 + half))
    assert row.vs_kd[:2] == pytest.approx((1, 0.08))
    assert math.isnan(row.vs_kd.low)


def test_missing_comparisons_are_missing(rows):
    assert rows["toy", "CE"].vs_ce is NO_INTERVAL
    assert rows["toy", "KD"].vs_kd is NO_INTERVAL
    assert rows["toy", "dkd"].vs_ce == pytest.approx(NO_INTERVAL, nan_ok=True)
    assert rows["other", "L3"].vs_ce.n == 0
    assert math.isnan(rows["other", "L3"].times_ce)


def test_other_numbers_are_means_of_what_was_logged(rows):
    row, ce = rows["toy", "L3"], rows["toy", "CE"]
    assert (row.synergy, row.gain) == pytest.approx((0.75, 0.01))
    assert (row.seconds, row.images_per_second) == pytest.approx((40, 600))
    assert row.times_ce == pytest.approx(30 / 20)  # at seed 1: the only one that both have
    assert math.isnan(row.peak_memory_mb)
    assert (ce.seconds, ce.times_ce, ce.peak_memory_mb) == pytest.approx((15, 1, 200))
    assert math.isnan(ce.synergy)


def test_the_gain_is_over_teachers_as_loaded_where_every_run_says_it():
    """A teacher that lost by its adaptation is no gain of the fusion; the two are never mixed."""
    kept = runs(
        distill("L3", 0, 0.6, gain=0.03, gain_original=0.01),
        distill("L3", 1, 0.6, gain=0.05, gain_original=0.02),
        distill("L4", 0, 0.6, gain=0.03, gain_original=0.01),
        distill("L4", 1, 0.6, gain=0.05),
        distill("CE", 0, 0.6),
    )
    rows = {row.rung: row for row in ladder_table(kept).rows}
    assert (rows["L3"].gain, rows["L3"].as_loaded) == (pytest.approx(0.015), True)
    assert (rows["L4"].gain, rows["L4"].as_loaded) == (pytest.approx(0.04), False)
    assert math.isnan(rows["CE"].gain)


def test_level_reaches_every_interval(kept):
    wide, narrow = ladder_table(kept, 0.99), ladder_table(kept, 0.5)
    for a, b in zip(wide.rows, narrow.rows, strict=True):
        for field in ("test", "vs_ce", "vs_kd"):
            assert not getattr(a, field).low >= getattr(b, field).low
    assert (wide.level, narrow.level) == (0.99, 0.5)


def test_no_runs_make_an_empty_table():
    assert ladder_table(pd.DataFrame(columns=["run_id"])).rows == ()


def test_a_seed_twice_is_refused():
    frame = runs(distill("CE", 0, 0.5), distill("CE", 0, 0.6))
    with pytest.raises(ValueError, match="CE on toy: a seed occurs twice"):
        logged_by_seed(frame, "toy", "CE")


def test_speed_is_the_median_of_b_steps_and_memory_the_maximum(kept):
    found = history(
        "r0",
        stage__step=[(0, 0), (1, 1), (2, 1), (3, 1)],
        cost__images_per_second=[(0, 9000), (1, 200), (2, 100), (3, 1000)],
        cost__peak_memory_mb=[(0, 70), (1, 50), (2, 60)],
    )
    costs = with_epoch_costs(kept, found).set_index("run_id")
    assert costs.loc["r0", "metrics.cost/images_per_second"] == 200
    assert costs.loc["r0", "metrics.cost/peak_memory_mb"] == 70
    teacher = history("r1", cost__images_per_second=[(0, 10), (1, 30), (2, 80)])
    of_teacher = with_epoch_costs(kept, pd.concat([found, teacher])).set_index("run_id")
    assert of_teacher.loc["r1", "metrics.cost/images_per_second"] == 30  # it has no A-Steps
    # Without a history the last values stay.
    assert costs.loc["r1", "metrics.cost/images_per_second"] == 700
    assert costs.loc["r3", "metrics.cost/peak_memory_mb"] == 100
    assert math.isnan(costs.loc["r2", "metrics.cost/peak_memory_mb"])


def test_no_history_leaves_the_last_values(kept):
    pd.testing.assert_frame_equal(
        with_epoch_costs(kept, history("r0")), kept, check_dtype=False, check_like=True
    )


def test_asib_is_distinguished_from_the_literature_by_its_tag_or_else_by_its_rungs_name():
    rungs = ("CE", "KD_null", "L2", "side_cccp_ppf", "kd", "own")
    frame = runs(*[distill(rung, 0, 0.5) for rung in rungs])
    assert of_asib(frame)["tags.rung"].tolist() == list(rungs[:4])
    assert fused(frame)["tags.rung"].tolist() == ["L2", "side_cccp_ppf"]
    tagged = frame.assign(**{"tags.method": [*["asib"] * 3, None, "kd", "asib"]})
    assert fused(tagged)["tags.rung"].tolist() == ["L2", "side_cccp_ppf", "own"]
    assert of_asib(frame[:0]).empty


def test_teachers():
    teacher = {"tags.stage": "finetune", "tags.bench": "toy"}
    best, last = "metrics.val/best_top1", "metrics.val/top1"
    frame = runs(
        teacher | {"tags.teachers": "resnet20", "tags.seed": "1", best: 0.9, last: 0.8},
        teacher | {"tags.teachers": "resnet20", "tags.seed": "0", last: 0.7},
        teacher | {"tags.teachers": "convnext", "metrics.test/top1": 0.6, last: 0.65},
        teacher | {"name": "finetune-x", "metrics.cost/run_seconds": 12.0, last: 0.5},
    )
    found = teachers_table(frame)
    assert [(row.model, row.seed) for row in found] == [
        ("convnext", None),
        ("finetune-x", None),
        ("resnet20", 0),
        ("resnet20", 1),
    ]
    assert [(row.validation, row.selected) for row in found] == [
        (0.65, False),
        (0.5, False),
        (0.7, False),
        (0.9, True),
    ]
    assert [row.test for row in found] == pytest.approx([0.6, *[math.nan] * 3], nan_ok=True)
    assert found[1].seconds == 12.0


def test_rungs_of_another_setting_are_not_compared():
    """Other data or another budget: the difference would not be one of methods."""
    frame = runs(
        distill("CE", 0, 0.5) | {"tags.setting": "a"},
        distill("L2", 0, 0.9) | {"tags.setting": "b"},
        distill("L3", 0, 0.6) | {"tags.setting": "a"},
        distill("KD", 0, 0.4),
    )
    rows = {row.rung: row for row in ladder_table(frame).rows}
    assert rows["L2"].vs_ce.n == 0
    assert rows["L3"].vs_ce.mean == pytest.approx(0.1)
    assert rows["KD"].vs_ce.mean == pytest.approx(
        -0.1
    )  # runs that do not say are taken as they are


def test_the_best_control_is_the_one_of_the_highest_validation_mean_on_its_bench():
    def row(rung: str, seed: int, val: float, bench: str = "toy") -> dict:
        return distill(rung, seed, 0.5, bench, **{f"metrics.{metrics.BEST_VAL_TOP1}": val})

    kept = [row(r, s, v) for r, v in (("CE", 0.6), ("KD", 0.5), ("kd", 0.6)) for s in range(3)]
    kept += [row("L3", 0, 0.9), row("KD", 0, 0.9, "b")]
    assert best_control(runs(*kept), "toy") == "CE", "the earlier of equals"
    kept += [row("KD", s, 0.9) for s in (3, 4)]
    assert best_control(runs(*kept), "toy") == "CE", "at seeds that the others lack"
    lucky = [row(r, s, v) for r, v in (("CE", 0.6), ("KD", 0.7)) for s in range(3)]
    assert best_control(runs(*lucky, row("kd", 0, 0.99)), "toy") == "KD"
    assert best_control(runs(distill("L3", 0, 0.7)), "toy") == ""
    assert best_control(runs(distill("KD", 0, 0.7)), "toy") == "KD"


def test_a_method_with_the_letters_of_a_rung_has_a_label_of_its_own() -> None:
    labels = [label_of(name) for name in (*RUNG_ORDER, *METHOD_ORDER)]
    assert len({label.lower() for label in labels}) == len(labels)
    assert [label_of(name) for name in ("KD", "kd", "ce", "dkd")] == [
        "KD",
        "kd (method)",
        "ce (method)",
        "dkd",
    ]
