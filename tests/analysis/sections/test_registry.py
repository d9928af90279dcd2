"""From a tracking store to a report, in each of its forms."""

import itertools
import math
import re

import pytest

from analysis import tags
from analysis.render import wording
from analysis.render.html import as_html
from analysis.render.latex import as_latex, latex_text
from analysis.render.markdown import as_markdown
from analysis.render.text import WIDTH, as_terminal
from analysis.report_model import Report
from analysis.sections.registry import analyze
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
def report(store, ids) -> Report:
    return analyze(store.uri, NAME, "ladder")


@pytest.fixture(scope="module")
def text(report) -> str:
    return as_terminal(report)


def test_the_summary_comes_first(text):
    plain = " ".join(text.split())
    assert plain.startswith("Experiment asib/ladder: ladder")
    summary = plain.partition(" Accuracy rung n ")[0]
    assert "Controls: CE and KD; better is better than each of them that can decide." in summary
    assert "No primary claim was declared, and L4, the default, has no run." in summary
    assert (
        "L3 − KD: +4.67 points, 95 % interval +3.23 to +6.10, n = 3, p = 0.005, after Holm 0.005, "
        "2.00 × the time: better than each of CE and KD." in summary
    )


def test_tables_hold_the_numbers(report, text):
    lines = [line.split() for line in text.splitlines()]
    assert ["L0", "1", "55.00", "–", "+4.00", "n=1", "−6.00", "n=1"] in lines
    assert ["L3", "90.00", "–", "–", "40.0", "2.00", "350", "–"] in lines
    assert ["resnet20", "0", "91.00", "–", "–"] in lines
    assert "| L0 | 1 | 55.00 | – | +4.00 n=1 | −6.00 n=1 |" in as_markdown(report).splitlines()


def test_notes_name_the_runs_left_out(text, ids):
    assert "Left out: 2 runs (1 failed, 1 running)." in text
    assert f"{ids['running']}  distill-L3-toy-s4: running" in text
    assert "toy: 3 seeds (0, 1, 2)." in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_section_holds_its_table_as_numbers_and_its_figures(report):
    (ladder,) = report.sections
    frame = ladder.frame.set_index("rung")
    assert list(frame.index) == ["CE", "KD", "L0", "L3"]
    assert frame.loc["L3", "vs_kd_mean"] == pytest.approx(0.14 / 3)
    assert frame.loc["L3", "seeds"] == "0 1 2"
    assert math.isnan(frame.loc["L0", "test_low"])
    assert [figure.name for figure in ladder.figures] == [
        "differences_toy",
        "accuracy_cost_toy",
        "learning_curves_toy",
    ]


def test_steps_of_the_ladder_are_among_the_claims(store):
    for rung, base in (("CE", 0.5), ("L3", 0.6), ("L4", 0.6)):
        for seed, noise in enumerate((0.0, 0.02, 0.01)):
            store.distill("steps", rung, seed, base + noise * (rung == "L4") + seed / 100)
    (ladder,) = analyze(store.uri, "steps", "ladder").sections
    claims = {row[0]: row for table in ladder.tables for row in table.block.rows}
    assert claims["L4 − L3"][1] == "+1.00 [−1.48, +3.48] n=3"
    assert claims["L4 − L3"][-2:] == ("no", "no")


def test_several_benches_are_kept_apart(store):
    store.distill("benches", "L3", 0, 0.6)
    store.distill("benches", "CE", 0, 0.5, tags={tags.BENCH: "b", tags.RUN_KEY: "b"})
    both = analyze(store.uri, "benches", "ladder")
    assert both.benches == ("b", "toy")
    text = as_terminal(both)
    toy = text.partition("Bench toy")[2]
    assert "Bench b" in text.partition("Bench toy")[0]
    assert "Primary claim" not in toy.partition("Missing:")[0]
    commands = {gap.what: gap.command for gap in both.of_bench("toy")[0].gaps}
    assert "runtime.experiment=benches cfg=KD seed=0" in commands["KD has not finished"]
    one = analyze(store.uri, "benches", "ladder", RunFilter("b"))
    assert one.benches == ("b",)
    assert "Bench toy" not in as_terminal(one)


def test_what_a_filter_leaves_out_is_not_missing(store):
    for rung in ("CE", "L3"):
        for seed in range(3):
            store.distill("filtered", rung, seed, 0.5 + seed / 10)
    with pytest.raises(
        ValueError, match=r"tag\.seed=7: no run has that value \(there are: 0, 1, 2"
    ):
        analyze(store.uri, "filtered", filters=RunFilter(tags={tags.SEED: "7"}))
    with pytest.raises(ValueError, match=r"no run has the tag sed; did you mean seed\?"):
        analyze(store.uri, "filtered", filters=RunFilter(tags={"sed": "1"}))
    none = as_terminal(analyze(store.uri, "filtered", "ladder", RunFilter("none", {"seed": "1"})))
    assert "No training run matches bench=none tag.seed=1" in none
    assert "python -m pipeline" not in none
    some = analyze(store.uri, "filtered", filters=RunFilter(tags={tags.SEED: "1"}))
    assert not any(section.gaps for section in some.sections)
    assert any(section.gaps for section in analyze(store.uri, "filtered").sections)


def test_a_bench_without_finished_runs_names_the_command_that_makes_them(store):
    run_id = store.distill("started", "L3", 0, None, status="RUNNING")
    report = analyze(store.uri, "started", "ladder")
    text = " ".join(as_terminal(report).replace("\\\n", " ").split())
    assert "python -m pipeline distill -m bench=toy runtime.experiment=started cfg=CE,KD,L0" in text
    assert run_id in text
    (ladder,) = report.sections
    assert ladder.empty
    assert ladder.frame is None


def test_an_experiment_with_a_launch_alone(store):
    store.run("launched", "launch", tags={tags.STAGE: "launch"})
    assert wording.NOTHING in as_terminal(analyze(store.uri, "launched", "ladder"))


def test_an_unknown_experiment_is_an_error(store, ids):
    with pytest.raises(ValueError, match=r"asib/laddr.*asib/ladder"):
        analyze(store.uri, "asib/laddr")


@pytest.fixture(scope="module")
def overlaps(store) -> Report:
    whole, half = {tags.TEACHERS: "a,b"}, {tags.TEACHERS: "a,b", tags.OVERLAP: "50"}
    store.distill("overlap", "CE", 0, 0.50)
    store.distill("overlap", "CE", 1, 0.50, status="FAILED")
    store.distill("overlap", "KD", 0, 0.70, tags=whole)
    for rung, test in (("KD", 0.55), ("L3", 0.60)):
        store.distill("overlap", rung, 0, test, tags=half | {tags.RUN_KEY: f"{rung}-half"})
    teacher = {tags.STAGE: "finetune", tags.BENCH: "toy", tags.SEED: "0"} | half
    store.run("overlap", "t", tags=teacher, metrics={metrics.VAL_TOP1: 0.9})
    return analyze(store.uri, "overlap", "ladder")


def test_overlaps_are_compared_with_their_own_controls(overlaps):
    assert overlaps.benches == ("toy", "toy overlap=50")
    half = as_terminal(overlaps).partition("Bench toy overlap=50")[2]
    lines = [line.split() for line in half.splitlines()]
    assert ["L3", "1", "60.00", "–", "+10.00", "n=1", "+5.00", "n=1"] in lines
    assert ["CE", "1", "50.00", "–", "–", "−5.00", "n=1"] in lines
    assert "a,b (overlap 50)" in half
    assert all(" " not in figure.name for one in overlaps.sections for figure in one.figures)
    frames = [section.frame for section in overlaps.sections]
    assert [list(frame["bench"]) for frame in frames] == [["toy"] * 2, ["toy overlap=50"] * 3]


def test_every_form_has_the_tables_of_all_overlaps(overlaps):
    rows = [
        row for section in overlaps.sections for table in section.tables for row in table.block.rows
    ]
    assert {row[2] for row in rows} >= {"70.00", "55.00", "60.00"}
    html = re.sub(r"<[^>]+>", " ", as_html(overlaps))
    forms = (as_terminal(overlaps), as_markdown(overlaps), html, as_latex(overlaps))
    for row, form in itertools.product(rows, forms):
        latex = form is forms[-1]
        for cell in row:
            shown = getattr(cell, "shown", cell)  # n is in the caption there
            assert (latex_text(shown) if latex else cell) in form
