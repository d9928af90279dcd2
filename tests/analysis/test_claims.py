"""Claims of stores with a planted truth: they must be reported as they are."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from analysis import tags
from analysis.claim_words import (
    attrition,
    control_sentence,
    little_to_teach,
    primary_sentences,
    sentence,
    sentences,
    tries,
)
from analysis.claims import Claim, Family, family
from analysis.ladder_numbers import TeacherRow, ladder_table
from analysis.selection.declared import as_tag
from benchmarks.coverage import Kind, kinds, said
from tests.analysis.frames import bench_runs, distill, runs
from trainers import metrics

SEEDS = range(5)
VAL = f"metrics.{metrics.BEST_VAL_TOP1}"


def store(n: int = 5, **effects: float) -> list[dict]:
    """CE and other rungs at n seeds: noise of 0.2 points a run, effects in points."""
    noise = np.random.default_rng(1)
    return [
        distill(rung, seed, 0.7 + effect / 100 + noise.normal(0, 0.002), seconds=10.0)
        for rung, effect in {"CE": 0.0, **effects}.items()
        for seed in range(n)
    ]


def found(*rows: dict, **options) -> Family:
    from dataclasses import replace

    return family(replace(bench_runs(runs(*rows)), **options))


def the(claims: Family, rung: str, reference: str | None = None) -> Claim:
    claim = claims.of(rung, reference)
    assert claim is not None
    return claim


def test_better_is_better_than_each_control_without_a_choice():
    claims = found(*store(KD=1.0, kd=0.5, L4=5.0, L3=0.5))
    claim = the(claims, "L4")
    assert claim.primary
    assert {c.reference for c in claim.comparisons} == {"CE", "KD", "kd"}
    assert claim.p == pytest.approx(2 * max(c.difference.p_above() for c in claim.comparisons))
    assert sentence(claim).endswith("× the time: better than each of CE, KD and kd (method).")
    assert "better" not in sentence(the(claims, "L3"))  # than CE, but not than KD
    assert the(claims, "L3").reference == "KD"


def test_worse_is_worse_than_one_of_them():
    claim = the(found(*store(KD=5.0, L4=1.0)), "L4")
    assert claim.p == pytest.approx(2 * 2 * claim.shown.difference.p_below())
    assert sentence(claim).endswith("worse than KD.")


def test_a_lucky_seed_or_another_budget_of_a_control_takes_no_claim_away():
    lucky = distill("kd", 0, 0.99)
    claim = the(found(*store(KD=1.0, L4=5.0), lucky), "L4")
    assert sentence(claim).endswith("better than each of CE and KD.")
    aside = "Not compared with kd (method): L4 (fewer than 3 seeds in common, or no variance)."
    assert aside in sentences(found(*store(KD=1.0, L4=5.0), lucky))
    longer = [
        distill("kd", s, 0.9 + s / 1000, **{"params.budget.student_epochs": "400"}) for s in SEEDS
    ]
    short = [row | {"params.budget.student_epochs": "20"} for row in store(KD=1.0, L4=5.0)]
    claims = found(*short, *longer)
    assert sentence(the(claims, "L4")).endswith("better than each of CE and KD.")
    aside = "Not compared with kd (method): L4 (what differs: budget.student_epochs (20 and 400))."
    assert aside in sentences(claims)


def test_students_of_other_teachers_are_not_compared_and_what_differs_is_named():
    name = f"tags.{tags.TEACHERS}"
    rows = [distill("KD", s, 0.7 + s / 100, **{name: "resnet20,resnet20"}) for s in SEEDS]
    rows += [distill("L4", s, 0.8 + s**2 / 100, **{name: "resnet56,resnet56"}) for s in SEEDS]
    claims = found(*rows)
    assert sentence(the(claims, "L4")) == (
        "L4 − KD: not compared; what differs: teachers (resnet56,resnet56 and resnet20,resnet20)."
    )
    assert not any(claim.significant for claim in claims.claims)


def test_all_claims_of_a_report_share_one_level():
    claims = found(*store(KD=1.0, kd=1.0, L2=1.0, L3=1.0, L4=1.0, KD_null=0.0, L3_null=0.0))
    decided = [claim for claim in claims.claims if not math.isnan(claim.p)]
    assert len(decided) == claims.size
    assert sum(claim.share for claim in decided) == pytest.approx(1.0)
    assert the(claims, "L4").share == pytest.approx(0.5)
    rungs = [the(claims, "L2"), the(claims, "L3")]
    assert [claim.share for claim in rungs] == pytest.approx([0.1875, 0.1875])
    two = found(*store(KD=1.0, L4=1.0), benches=2)
    assert sum(claim.share for claim in two.claims) == pytest.approx(0.5)
    one = found(*store(KD=1.0, L4=1.0))
    assert the(two, "L4").adjusted == pytest.approx(min(1, 2 * the(one, "L4").adjusted))
    assert "each of 2 benches has its part" in sentences(two)[-1]


def test_placebos_and_matched_controls_are_no_rungs():
    matched = [
        distill("CE_matched", s, 0.9 + s**2 / 1000, **{f"tags.{tags.MATCHED_TO}": "L4"})
        for s in SEEDS
    ]
    claims = found(*store(KD=3.0, L2=4.0, L4=4.0, L2_null=1.0, KD_null=2.0), *matched)
    assert {c.rung for c in claims.claims if c.of_control} == {"L2", "L4"}
    checks = {(c.rung, c.reference) for c in claims.claims if not c.of_control}
    assert checks == {
        ("L4", "L2"),
        ("L2", "L2_null"),
        ("KD", "KD_null"),
        ("L4", "CE_matched"),
        ("KD", "CE"),
    }
    assert sentence(the(claims, "L4", "CE_matched")).endswith("worse than CE_matched.")
    assert the(claims, "L2", "L2_null").significant


def test_a_primary_claim_is_declared_at_launch_or_chosen_at_analysis():
    claim = as_tag({"rung": "L2", "control": "KD", "margin": 1.0, "seeds": [0, 1, 2, 3, 4, 5]})
    rows = store(KD=1.0, kd=9.0, L2=5.0, L4=5.0)
    study = {"tags.bench": "toy", "tags.stage": "study", f"tags.{tags.CLAIM}": claim}
    declared = found(*rows, study)
    first = declared.claims[0]
    assert (first.rung, [c.reference for c in first.comparisons]) == ("L2", ["KD"])
    assert first.share == pytest.approx(0.5)
    texts = primary_sentences(declared)
    day = f"1970-01-{len(rows) + 1:02d}"
    assert texts[0].startswith("Primary claim: L2 − KD: ")
    assert texts[1] == f"The primary claim was declared at launch ({day})."
    assert texts[2] == "Declared seeds of L2 that have not finished: 5."
    assert declared.primary.margin == 0.01
    chosen = found(*rows, study, primary="L4")
    assert primary_sentences(chosen)[1].endswith("was chosen at analysis (the default).")
    other = found(*rows, primary="L2")
    assert primary_sentences(other)[0].startswith("Primary claim: L2 − ")
    assert primary_sentences(other)[1] == "The primary claim was chosen at analysis."
    assert the(other, "L2").share < 0.5  # what was chosen by its result has no level of its own
    (text,) = primary_sentences(found(*rows[:10], primary="L5"))
    assert text == "Primary claim: L5 against CE and KD: no run of L5."


def test_a_claim_may_name_its_controls_and_the_stack_is_then_compared_on_its_own():
    rows = store(CE=1.0, KD=2.0, self=3.0, L2=6.0, stack=6.5)
    study = {"tags.bench": "toy", "tags.stage": "study"}

    def of(control: object) -> list[tuple[str, list[str]]]:
        tag = as_tag({"rung": "L2", "control": control})
        claims = found(*rows, study | {f"tags.{tags.CLAIM}": tag}).claims
        return [(c.rung, [x.reference for x in c.comparisons]) for c in claims if c.rung == "L2"]

    assert of(["CE", "KD", "self"]) == [("L2", ["CE", "KD", "self"]), ("L2", ["stack"])]
    assert of("each") == [("L2", ["CE", "KD", "self", "stack"])]
    assert of(["stack", "KD"]) == [("L2", ["stack", "KD"])]
    claim = the(found(*rows), "L2")
    assert claim.reference == "stack"
    assert not claim.better


def test_twins_are_told_by_their_weights_and_not_by_equal_accuracies():
    digest = f"metrics.{metrics.STATE}student"
    rows = [
        distill(r, s, 0.7 + s / 100 + (r == "CE") / 50, **{digest: float(s if r != "CE" else 99)})
        for r in ("CE", "L3", "L4")
        for s in SEEDS
    ]
    twin = the(found(*rows), "L4", "L3")
    assert twin.twin
    assert "they are one experiment" in sentence(twin)
    equal = [row | {digest: float(k)} for k, row in enumerate(rows)]
    assert not the(found(*equal), "L4", "L3").twin


def test_failed_seeds_are_in_the_first_lines_and_the_survivors_win_nothing():
    rows = store(10, KD=1.0, L4=5.0)
    lost = [
        row | {"status": "FAILED", "metrics.test/top1": None}
        if row["tags.rung"] == "L4" and int(row["tags.seed"]) > 3
        else row
        for row in rows
    ]
    claims = found(*lost)
    (text,) = attrition(claims, ladder_table(bench_runs(runs(*lost)).kept))
    assert text.startswith("L4: 6 of 10 seeds failed (of the controls' 0 of 20; Fisher's exact")
    mean = the(claims, "L4").interval.mean  # of four seeds; of six others 0 or 100 %
    control = ladder_table(bench_runs(runs(*lost)).kept).rows[1].test.mean
    low, high = (100 * (0.4 * mean + 0.6 * (end - control)) for end in (0, 1))
    assert text.endswith(f"would be −{-low:.2f} or +{high:.2f} points.")
    claim = the(claims, "L4")
    assert claim.adjusted < 0.05
    assert not claim.significant
    assert sentence(claim).endswith("no conclusion, as many of its seeds failed.")


def test_more_configurations_than_the_controls_had_are_a_warning():
    rows = [
        distill("L4", s, 0.7, **{VAL: 0.7 + s / 100, f"tags.{tags.RECIPE}": f"r{k}"})
        for k in range(12)
        for s in (0, 1, 2, 3)
    ]
    rows += [distill("KD", s, 0.7, **{f"tags.{tags.RECIPE}": "kd"}) for s in range(4)]
    of = bench_runs(runs(*rows))
    (text,) = tries(family(of), of.kept)
    assert text == (  # 1.63 standard errors of 1.29 points / √4
        "L4 ran in 12 configurations, its controls in 1 at most: of 12 equal ones the best on "
        "validation is 1.6 standard errors too high by chance, about 1.06 points."
    )


def test_the_control_that_figures_show_is_the_best_on_validation():
    rows = [
        distill(r, s, test + s**2 / 1e4, **{VAL: val + s / 1e4})
        for r, test, val in (("CE", 0.8, 0.7), ("KD", 0.7, 0.8), ("L4", 0.9, 0.9))
        for s in SEEDS
    ]
    lucky = distill("kd", 0, 0.7, **{VAL: 0.99})
    claims = found(*rows, lucky)
    assert claims.control == "KD"
    assert control_sentence(claims) == (
        "Controls: CE, KD and kd (method); better is better than each of them that can decide. "
        "The best on validation: KD."
    )
    assert control_sentence(found(*rows[:5])) == "Control: CE."


@pytest.mark.parametrize("n", [1, 2])
def test_one_seed_or_two_conclude_nothing(n: int):
    claims = found(*store(n, KD=1.0, L4=20.0))
    assert math.isnan(the(claims, "L4").p)
    assert "no conclusion" in sentence(the(claims, "L4"))
    assert not any(claim.significant for claim in claims.claims)


def test_no_variance_concludes_nothing():
    rows = [distill(r, s, 0.7 + s / 100 + (r == "L4") / 20) for r in ("CE", "L4") for s in SEEDS]
    assert sentence(the(found(*rows), "L4")).endswith("no variance: no conclusion.")


def test_equivalence_and_the_seeds_needed_have_the_level_of_the_family():
    rows = [
        distill(r, s, 0.8 + s / 100 + draw)
        for r in ("CE", "L4")
        for s, draw in enumerate(np.random.default_rng(0).normal(0, 1e-4, 8))
    ]
    rows[8:] = [
        row | {"metrics.test/top1": row["metrics.test/top1"] + (s % 3) * 1e-4}
        for s, row in enumerate(rows[8:])
    ]
    claim = the(found(*rows), "L4")
    assert claim.within(0.005)
    assert not claim.within(0.0001)
    wide = the(found(*store(KD=0.0, L4=0.3)), "L4")
    mid, low, high = wide.needed()
    assert mid is not None
    assert low is not None
    assert low < mid < (high or math.inf)


def test_teachers_that_are_no_better_than_a_student_without_them_are_reported():
    """Of validation, never of test; specialised teachers know some classes only."""
    kept = runs(
        *(
            distill(rung, seed, 0.99, **{VAL: val + seed / 100})
            for rung, val in (("CE", 0.70), ("CE_matched", 0.80), ("L4", 0.95))
            for seed in (0, 1)
        )
    )

    def printed(*teachers: TeacherRow) -> list[str]:
        return [text.split(" has")[0] for text in little_to_teach(kept, teachers, "toy")]

    weak = TeacherRow("toy", "resnet20", 0, 0.75, True, 0.5, 1.0)
    assert printed() == []
    assert printed(weak) == ["CE_matched"]
    assert printed(weak, weak._replace(validation=0.81)) == []
    assert printed(weak._replace(some_classes=True)) == printed(weak._replace(bench="other")) == []
    assert printed(weak._replace(validation=0.6)) == ["CE", "CE_matched"]
    (text,) = little_to_teach(kept, (weak,), "toy")
    assert "80.50 [74.15, 86.85] % on validation (n = 2), the best teacher, resnet20, 75.00" in text
    no_values = kept.drop(columns=VAL)
    assert little_to_teach(no_values, (weak,), "toy") == ()


def test_a_seed_that_one_of_the_two_lacks_is_in_neither_accuracy_nor_time():
    slow = [distill("CE", s, 0.7 + s / 100, seconds=t) for s, t in enumerate((10, 10, 10, 40))]
    three = [distill("L4", s, 0.8 + s / 100, seconds=15.0) for s in (0, 1, 2)]
    first = the(found(*slow, *three), "L4")
    assert first.interval.n == 3
    assert first.times == pytest.approx(1.5)


STORES = 150


@pytest.mark.thorough
@pytest.mark.parametrize("kind", kinds()[::3], ids=lambda kind: kind.name)
def test_false_words_and_power_over_many_stores(kind: Kind):
    """At most 5 % of reports have a false word, and an effect is found as often as theory says."""
    found = said(kind, STORES)
    assert found.false * STORES <= binom.ppf(0.999, STORES, 0.05)
    if not math.isnan(found.theory):
        low, high = binom.interval(0.999, STORES, found.theory)
        assert low <= found.found * STORES <= high + 0.1 * STORES


def test_an_effect_is_found_and_no_effect_is_not():
    by_name = {kind.name: kind for kind in kinds()}
    assert said(by_name["L4 +2.0, n = 10, sd 0.3"], 3).found == 1.0
    assert said(by_name["no effect, n = 3, 359 images, sd 0.1"], 20).false == 0.0
    assert said(by_name["no effect, n = 2, 359 images, sd 0.3"], 20).false == 0.0
