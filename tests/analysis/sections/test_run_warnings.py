"""Warnings of training runs in the report."""

import pandas as pd
import pytest

from analysis import tags
from analysis.render.page import as_markdown_report, as_page, warnings
from analysis.report import analyze
from analysis.sections import run_warnings
from analysis.sections.registry import investigate
from tests.analysis.frames import distill, runs
from trainers import metrics
from trainers.health import WARNINGS

CHECKED = {"metrics.health/non_finite": 0.0}


def test_a_tag_names_the_warnings_and_a_run_that_goes_on_has_metrics():
    frame = runs(
        distill("L3", 0, 0.5) | {"tags.health": "gate_never_open,sigma_at_one", "name": "one"},
        distill("L3", 1) | {"metrics.health/sigma_at_one": 1.0, "name": "two", "status": "RUNNING"},
        distill("L3", 2, 0.5) | {"metrics.health/sigma_at_one": 0.0, "tags.health": None},
        distill("L3", 3) | {"tags.health": "a_new_one", "name": "four", "tags.run_key": "abc"},
    )
    assert run_warnings.warned(frame) == (
        ("gate_never_open", ("one",)),
        ("sigma_at_one", ("one", "two")),
        ("a_new_one", ("four (abc)",)),
    )
    told = run_warnings.sentences(frame)
    assert told[1] == f"sigma_at_one (one, two): {WARNINGS['sigma_at_one'].advice}"
    assert told[2].startswith("a_new_one (four (abc)): ")


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (runs(distill("L3", 0, 0.5) | CHECKED), "No warning in 1 run."),
        (runs(*(distill("L3", s, 0.5) | CHECKED for s in (0, 1))), "No warning in 2 runs."),
        (runs(distill("L3", 0, 0.5)), "No run logged its health."),
        (pd.DataFrame(), "No run logged its health."),
    ],
)
def test_nothing_to_tell(frame: pd.DataFrame, told: str):
    assert run_warnings.sentences(frame) == (told,)


def test_many_runs_are_told_by_their_rungs():
    ill = [
        distill(rung, s) | {"tags.health": "non_finite", "name": f"{rung}-{s}"}
        for rung in ("L3", "L2")
        for s in (0, 1)
    ]
    well = [distill("CE", 0) | CHECKED, distill("L4", 0)]  # L4 logged no health
    (told,) = run_warnings.sentences(runs(*ill, *well))
    assert told.startswith("non_finite (L2, L3: all 4 runs): ")
    (told,) = run_warnings.sentences(runs(*ill, distill("L2", 2) | CHECKED, *well))
    assert told.startswith("non_finite (L2, L3: 4 of 5 runs): ")
    teachers = [distill("", s) | {"tags.health": "non_finite", "name": f"t{s}"} for s in range(4)]
    (told,) = run_warnings.sentences(runs(*teachers).drop(columns="tags.rung"))
    assert told.startswith("non_finite (teachers: all 4 runs): ")


def test_the_report_lists_them_with_failed_runs(store):
    store.distill("ill", "L3", 0, 0.5, tags={tags.HEALTH: "gate_never_open"})
    store.distill("ill", "L3", 1, None, tags={tags.HEALTH: "non_finite"}, status="FAILED")
    report = analyze(store.uri, "ill")
    section = report.text.partition("\nHealth\n")[2].partition("\nNotes\n")[0]
    assert "gate_never_open (distill-L3-toy-s0 (L3-0)): The gate was closed" in section
    assert "non_finite (distill-L3-toy-s1 (L3-1))" in section
    assert "## Health" in report.markdown


def test_page_and_markdown_of_the_ladder_tell_them_too(store):
    for seed in (0, 1):
        store.distill("told", "L3", seed, 0.5, tags={tags.HEALTH: "gate_never_open"})
    ladder = investigate(store.uri, "told", "ladder")
    (warning,) = [text for text in warnings(ladder) if text.startswith("gate_never_open")]
    assert WARNINGS["gate_never_open"].advice in warning
    assert "gate_never_open" in as_page(ladder)
    assert warning in as_markdown_report(ladder)
    everything = investigate(store.uri, "told")  # of which health is a part
    of_gate = [text for text in warnings(everything) if text.startswith("gate_never_open")]
    assert of_gate == ["gate_never_open: 2 runs"]


def test_the_ladder_notes_that_no_run_gave_a_warning(store):
    store.distill("well", "L3", 0, 0.5, metrics={"health/non_finite": 0.0})
    ladder = investigate(store.uri, "well", "ladder")
    assert "No warning in 1 run." in ladder.studies[0].notes
    assert "No warning" not in " ".join(warnings(ladder))


def test_the_ladder_tells_of_a_test_split_that_was_read_again(store):
    read = {metrics.TEST_READS: 2.0, "health/non_finite": 0.0}
    store.distill("again", "L3", 0, 0.5, metrics=read)
    said = "the test split was read more than once: 1 run"
    assert said in warnings(investigate(store.uri, "again", "ladder"))
    assert warnings(investigate(store.uri, "again")).count(said) == 1
    section = analyze(store.uri, "again").text.partition("\nHealth\n")[2]
    assert said in section
    assert "No warning" not in section
