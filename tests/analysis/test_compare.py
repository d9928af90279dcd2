"""The comparison of runs, as numbers and as one screen."""

import math

import pandas as pd
import pytest

from analysis import tags
from analysis.compare import as_screen, comparison
from analysis.ladder_numbers import ladder_table, with_epoch_costs
from analysis.render.text import WIDTH
from analysis.selection.run_lookup import select_runs
from tests.analysis.frames import distill, history, params, runs
from trainers import metrics


def ladder(**of_l3) -> list[dict]:
    made = []
    for rung, base, seconds in (("L2", 0.50, 10.0), ("L3", 0.60, 15.0)):
        for seed in (0, 1):
            made.append(
                distill(
                    rung,
                    seed,
                    base + seed / 100,
                    seconds=seconds,
                    memory=100.0,
                    **params(method__adapt=rung, seed=seed, runtime__device="cpu"),
                )
                | {f"tags.{tags.RUN_KEY}": f"{rung}-{seed}", f"tags.{tags.RECIPE}": rung}
                | (of_l3 if rung == "L3" else {})
            )
    return made


def compared(frame, *words):
    return comparison(select_runs(frame, words))


def test_configuration_results_and_cost():
    found = compared(runs(*ladder()), "L2", "L3")
    assert found.parameters == (("method.adapt", ("L2", "L3")),)
    a, b = found.runs
    assert (a.label, b.label, a.seed, b.seed) == ("A", "B", 0, 0)
    assert (a.own_test, b.own_test) == (0.50, 0.60)
    assert a.difference.n == 0
    assert b.difference == pytest.approx((2, 0.1, 0.1, 0.1))
    assert (b.seconds, b.memory_mb) == (15.0, 100.0)
    assert math.isnan(b.validation)
    assert found.same == ()


def test_options_that_a_method_lacks_are_no_difference():
    kd = params(method__name="kd", method__kd_weight=0.5, method__alpha=1, budget__epochs=2)
    dkd = params(method__name="dkd", method__kd_weight=0.9, method__beta=8, budget__epochs=3)
    found = compared(runs(distill("kd", 0, 0.5, **kd), distill("dkd", 0, 0.5, **dkd)), "kd", "dkd")
    shown = [name for name, _ in found.parameters]
    assert shown == ["budget.epochs", "method.kd_weight", "method.name"]


def test_speed_and_memory_are_those_of_the_ladder():
    frame = runs(*(row | {"metrics.cost/images_per_second": 9.0} for row in ladder()))
    found = select_runs(frame, ["L2", "L3"])
    logged = pd.concat(
        [
            history(
                str(one.run["run_id"]),
                stage__step=[(0, 0), (1, 1), (2, 1), (3, 1)],
                cost__images_per_second=[(0, 9e3), (1, 200.0), (2, 100.0), (3, 9.0)],
                cost__peak_memory_mb=[(0, 70.0), (1, 50.0)],
            )
            for one in found
        ]
    )
    assert [one.images_per_second for one in comparison(found).runs] == [9.0, 9.0]
    shown = [(one.images_per_second, one.memory_mb) for one in comparison(found, logged).runs]
    first = frame[frame["tags.seed"].eq("0")]
    table = ladder_table(with_epoch_costs(first, logged))
    assert shown == [(row.images_per_second, row.peak_memory_mb) for row in table.rows]
    assert shown == [(100.0, 70.0)] * 2


def test_the_screen_begins_with_the_experiment_and_the_paired_differences():
    frame = runs(*ladder()).assign(experiment="asib/other")
    text = as_screen(compared(frame, "L2", "L3"))
    assert text.startswith("Experiment asib/other\n\nrun")
    results = text.partition("\nResults\n\n")[2].splitlines()
    assert results[0].split()[-2:] == ["−", "A"]
    assert results[2].split()[:2] == ["B", "+10.00"]
    one = as_screen(compared(frame[frame["tags.seed"].eq("0")], "L2", "L3"))
    assert "no conclusion. Runs of another experiment: experiment=NAME." in one


def test_runs_of_one_experiment_are_reported_as_the_same():
    rows = [distill("L2", 0, 0.5) | {f"tags.{tags.RUN_KEY}": "abcd12"} for _ in range(2)]
    rows[1][f"tags.{tags.REUSED}"] = "true"
    frame = runs(*rows)
    found = comparison([*select_runs(frame, ["run 0"]), *select_runs(frame.iloc[[1]], ["run 1"])])
    assert found.same == (
        "A and B are the same experiment (key abcd12); one was replayed from the store.",
    )
    twice = comparison(select_runs(frame, ["run 0", "run 0"]))
    assert twice.same == ("A and B are one and the same run.",)


def test_seeds_of_one_configuration_and_twins():
    frame = runs(*ladder())
    seeds = comparison(
        [*select_runs(frame.iloc[[0]], ["run 0"]), *select_runs(frame.iloc[[1]], ["run 1"])]
    )
    assert "one configuration at other seeds (0, 1)" in seeds.same[0]
    same = [row | {f"metrics.{metrics.TEST_TOP1}": 0.5} for row in ladder()]
    assert "equal at each of 2 seeds" in compared(runs(*same), "L2", "L3").same[0]


def test_the_screen_is_narrow_and_reports_missing_intervals():
    many = [
        distill(f"M{k}", 0, 0.5 + k / 100, **params(method__name="m" * 40 + str(k)))
        for k in range(8)
    ]
    text = as_screen(compared(runs(*many), *(f"M{k}" for k in range(8))))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "Configuration: 1 parameter differs" in text
    assert "One seed in common: no interval, no conclusion." in text


def test_a_teacher_next_to_a_student_and_other_seeds_are_pointed_out():
    teacher = distill("t", 0, 0.9) | {"tags.stage": "finetune", "metrics.val/best_top1": 0.9}
    frame = runs(distill("CE", 0, 0.5), distill("KD", 1, 0.6), teacher)
    text = " ".join(as_screen(comparison(select_runs(frame, ["r0", "r1", "r2"]))).split())
    assert "C a teacher's fine-tuning: their results cannot be compared" in text
    assert "B has seed 1, A seed 0: the difference of the single runs includes the" in text
    assert "No seed in common: no interval, no conclusion." in text
