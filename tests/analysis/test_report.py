"""The whole way from a tracking store to what is printed."""

import math

import pytest

from analysis import tags
from analysis.render.text import WIDTH
from analysis.report import analyze
from analysis.sections.registry import investigate
from analysis.selection.filters import RunFilter
from trainers import metrics

NAME = "asib/ladder"


@pytest.fixture(scope="module")
def ids(store) -> dict[str, str]:
    def epochs(top1: float, a_steps: int) -> dict:
        steps = range(a_steps + 2)
        values = {
            metrics.STAGE_STEP: [(step, float(step >= a_steps)) for step in steps],
            metrics.IMAGES_PER_SECOND: [(step, 100.0 * (step + 1)) for step in steps],
            metrics.VAL_TOP1: [(a_steps, top1 / 2), (a_steps + 1, top1)],
            metrics.RUN_SECONDS: 10.0 * len(steps),
        }
        synergy = {name: [(1, 0.9)] for name in (metrics.SYNERGY_TOP1, metrics.SYNERGY_RESTORED)}
        return values | (synergy if a_steps else {})

    for seed in range(3):
        store.distill(NAME, "CE", seed, 0.50 + seed / 100, metrics=epochs(0.5, 0))
        store.distill(NAME, "KD", seed, 0.60 + seed / 100, metrics=epochs(0.6, 0))
        store.distill(NAME, "L3", seed, (0.64, 0.66, 0.67)[seed], metrics=epochs(0.6, 2))
    store.distill(NAME, "L0", 1, 0.55)
    store.run(
        NAME,
        "finetune-resnet20-s0",
        tags={tags.STAGE: "finetune", tags.TEACHERS: "resnet20", tags.SEED: "0"}
        | {tags.BENCH: "toy"},
        metrics={metrics.BEST_VAL_TOP1: 0.91, metrics.VAL_TOP1: [(0, 0.5), (1, 0.9)]},
    )
    return {
        "failed": store.distill(NAME, "L3", 3, None, status="FAILED"),
        "running": store.distill(NAME, "L3", 4, None, status="RUNNING"),
    }


@pytest.fixture(scope="module")
def report(store, ids):
    return analyze(store.uri, NAME)


def test_sentences_come_first(report):
    assert report.text.splitlines()[:9] == [
        "Experiment asib/ladder",
        "",
        "Bench toy",
        "---------",
        "",
        "Best control: KD, test top-1 61.00 % (the highest mean of the controls: a choice that "
        "favours them).",
        "CE − KD: −10.00 points, 95 % interval −10.00 to −10.00, n = 3, p < 0.001, after Holm "
        "< 0.001, 1.00 ×",
        "the time: worse than KD.",
        "L0 − KD: −6.00 points; one seed: no interval, no conclusion.",
    ]
    assert (
        "L3 − KD: +4.67 points, 95 % interval +3.23 to +6.10, n = 3, p = 0.005, after Holm 0.005, "
        "2.00 × the time: better than KD." in " ".join(report.text.split())
    )


def test_tables_hold_the_numbers(report):
    lines = [line.split() for line in report.text.splitlines()]
    assert ["L0", "1", "55.00", "+4.00", "n=1", "−6.00", "n=1"] in lines
    assert ["L3", "90.00", "–", "–", "40.0", "2.00", "350", "–"] in lines
    assert ["resnet20", "0", "91.00", "–", "–"] in lines
    assert "| L0 | 1 | 55.00 | +4.00 n=1 | −6.00 n=1 |" in report.markdown.splitlines()


def test_notes_name_the_runs_left_out(report, ids):
    assert "Left out: 2 runs (1 failed, 1 running)." in report.text
    assert f"{ids['running']}  distill-L3-toy-s4: running" in report.text
    assert "toy: 3 seeds (0, 1, 2)." in report.text
    assert max(map(len, report.text.splitlines())) <= WIDTH


def test_table_and_figures(report):
    table = report.table.set_index("rung")
    assert list(table.index) == ["CE", "KD", "L0", "L3"]
    assert table.loc["L3", "vs_kd_mean"] == pytest.approx(0.14 / 3)
    assert table.loc["L3", "seeds"] == "0 1 2"
    assert math.isnan(table.loc["L0", "test_low"])
    assert set(report.figures) == {
        "differences_toy",
        "learning_curves_toy",
        "accuracy_cost_toy",
    }


def test_the_steps_of_the_ladder_stand_under_the_claims_against_the_control(store):
    for rung, base in (("CE", 0.5), ("L3", 0.6), ("L4", 0.6)):
        for seed, noise in enumerate((0.0, 0.02, 0.01)):
            store.distill("steps", rung, seed, base + noise * (rung == "L4") + seed / 100)
    lines = analyze(store.uri, "steps").text.splitlines()
    (step,) = [line.split() for line in lines if line.startswith("L4 − L3  ")]
    assert step[3:7] == ["+1.00", "[−1.48,", "+3.48]", "n=3"]
    assert step[-1] == "no"
    tables = [line.split()[0] for line in lines if line.startswith(("step ", "rung "))]
    assert tables == ["step", "rung", "rung"]


def test_several_benches_are_kept_apart(store):
    store.distill("benches", "L3", 0, 0.6)
    store.distill("benches", "CE", 0, 0.5, tags={tags.BENCH: "b", tags.RUN_KEY: "b"})
    both = analyze(store.uri, "benches")
    assert both.text.index("Bench b") < both.text.index("Bench toy")
    toy = both.text.partition("Bench toy")[2]
    said = " ".join(toy.split())
    assert "The control KD has not finished in experiment benches (below: what to type)." in said
    typed = "python -m pipeline distill bench=toy runtime.experiment=benches cfg=KD seed=0"
    assert f"    {typed}\n" in toy
    assert "The control CE has not finished" in both.text.partition("Bench toy")[2]
    assert "Best control" not in both.text.partition("Bench toy")[2]
    assert len(both.figures) == 4
    one = analyze(store.uri, "benches", bench="b")
    assert list(one.table["bench"]) == ["b"]
    assert "Bench toy" not in one.text


def test_what_a_filter_leaves_out_is_neither_missing_nor_unfinished(store):
    for rung in ("CE", "L3"):
        for seed in range(3):
            store.distill("filtered", rung, seed, 0.5 + seed / 10)
    with pytest.raises(
        ValueError, match=r"tag\.seed=7: no run has that value \(there are: 0, 1, 2"
    ):
        analyze(store.uri, "filtered", asked=RunFilter(tags={tags.SEED: "7"}))
    with pytest.raises(ValueError, match=r"no run has the tag sed; did you mean seed\?"):
        analyze(store.uri, "filtered", asked=RunFilter(tags={"sed": "1"}))
    none = analyze(store.uri, "filtered", asked=RunFilter("none", {tags.SEED: "1"}))
    assert "experiment filtered is left by bench=none tag.seed=1." in none.text
    assert "python -m pipeline" not in none.text.partition("Teachers")[0]
    some = investigate(store.uri, "filtered", asked=RunFilter(tags={tags.SEED: "1"}))
    assert not any(study.gaps for study in some.studies)
    assert any(study.gaps for study in investigate(store.uri, "filtered").studies)


def test_nothing_finished_is_a_report_that_says_what_to_type(store):
    run_id = store.distill("started", "L3", 0, None, status="RUNNING")
    report = analyze(store.uri, "started")
    assert "No distillation run has finished in experiment started." in report.text
    assert "    python -m pipeline distill cfg=L3 runtime.experiment=started\n" in report.text
    assert run_id in report.text
    assert "No fine-tuning run has finished." in report.markdown
    assert report.figures == {}
    assert report.table.empty
    assert "vs_ce_mean" in report.table
    assert "on bench none" in analyze(store.uri, "started", bench="none").text


def test_experiment_with_a_launch_alone(store):
    store.run("launched", "launch", tags={tags.STAGE: "launch"})
    assert "Nothing finished" in analyze(store.uri, "launched").text


def test_unknown_experiment_is_an_error(store, ids):
    with pytest.raises(ValueError, match=r"asib/laddr.*asib/ladder"):
        analyze(store.uri, "asib/laddr")


def test_overlaps_are_compared_with_their_own_controls(store):
    whole, half = {tags.TEACHERS: "a,b"}, {tags.TEACHERS: "a,b", tags.OVERLAP: "50"}
    store.distill("overlap", "CE", 0, 0.50)
    store.distill("overlap", "CE", 1, 0.50, status="FAILED")
    store.distill("overlap", "KD", 0, 0.70, tags=whole)
    for rung, test in (("KD", 0.55), ("L3", 0.60)):
        store.distill("overlap", rung, 0, test, tags=half | {tags.RUN_KEY: f"{rung}-half"})
    teacher = {tags.STAGE: "finetune", tags.BENCH: "toy", tags.SEED: "0"} | half
    store.run("overlap", "t", tags=teacher, metrics={metrics.VAL_TOP1: 0.9})
    found = analyze(store.uri, "overlap")
    part = found.text.partition("Bench toy overlap=50")[2].partition("Teachers")[0]
    assert "L3 − KD: +5.00 points" in part
    assert "CE − KD: −5.00 points" in part
    assert list(found.table["bench"]) == ["toy"] * 2 + ["toy overlap=50"] * 3
    assert {name for name in found.figures if "overlap" in name} == {
        "differences_toy_overlap=50",
        "learning_curves_toy_overlap=50",
        "accuracy_cost_toy_overlap=50",
    }
    assert "Left out: 1 run (1 failed)." in found.text
    assert "a,b (overlap 50)" in found.text
    assert "on its own classes, test on all" in found.text
