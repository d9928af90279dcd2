"""Warnings on small frames, and in every form of a report."""

import math

import pandas as pd
import pytest

from analysis import tags
from analysis.render import wording
from analysis.render.html import as_html
from analysis.render.markdown import as_markdown
from analysis.render.text import as_terminal
from analysis.report_model import Section
from analysis.sections import health
from analysis.sections.registry import analyze
from tests.analysis.frames import bench_runs, distill, history, runs
from trainers import metrics
from trainers.health import WARNINGS


def test_health_lists_tags_values_and_what_the_store_shows():
    frame = runs(
        distill(
            "L3",
            0,
            0.5,
            **{"tags.health": "gate_never_open, kd_small", "metrics.test/reads": 2.0},
        ),
        distill("L3", 1, 0.5, **{"metrics.health/sigma_collapsed": 1.0}),
        distill("L3", 2, None, status="FAILED", **{"metrics.train/loss/total": math.inf}),
    )
    found = {one.warning: one.run_ids for one in health.health_info(frame)}
    assert found == {
        "gate_never_open": ("r0",),
        "kd_small": ("r0",),
        "sigma_collapsed": ("r1",),
        "the test split was read more than once": ("r0",),
        "a value is infinite": ("r2",),
        "failed": ("r2",),
    }


def test_runs_of_one_name_are_distinguished_in_the_health_list():
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
    (only,) = health.health_info(frame)
    assert only.runs == (
        "a",
        "b (key 222222)",
        "b (key 333333)",
        "c (run r3)",
        "c (run r4)",
        "d (run r5)",
        "d (run r6)",
    )


def test_a_test_accuracy_at_two_steps_is_a_warning_whatever_the_run_says_of_its_readings():
    kept = runs(*(distill("L3", s, None, **{"metrics.test/reads": 1.0}) for s in (0, 1)))
    points = [history("r0", test__top1=[(1, 0.5), (2, 0.6)]), history("r1", test__top1=[(2, 0.6)])]
    found = health.section(bench_runs(kept, *points))
    assert found.warnings == ("the test split was read more than once: 1 run",)
    assert found.run_ids == ("r0",)


def test_health_says_that_there_is_nothing():
    quiet = health.section(bench_runs(runs(distill("CE", 0, 0.5))))
    assert quiet.sentences == ("No warning in 1 run.",)
    assert quiet.notes == ("No run logged health values.",)


CHECKED = {"metrics.health/non_finite": 0.0}


def alone(frame: pd.DataFrame) -> Section:
    """The ladder as a report of it alone shows it."""
    return health.with_health(Section("ladder", "toy", "Ladder"), bench_runs(frame))


def test_a_sentence_names_the_runs_and_gives_the_advice():
    frame = runs(
        distill("L3", 0, 0.5) | {"tags.health": "gate_never_open,sigma_at_one", "name": "one"},
        distill("L3", 1) | {"metrics.health/sigma_at_one": 1.0, "name": "two", "status": "RUNNING"},
        distill("L3", 2, 0.5) | {"metrics.health/sigma_at_one": 0.0, "tags.health": None},
        distill("L3", 3) | {"tags.health": "a_new_one", "name": "four"},
    )
    assert health.given(frame) == ("gate_never_open", "sigma_at_one")
    assert set(alone(frame).warnings) == {
        f"gate_never_open (one): {WARNINGS['gate_never_open'].advice}",
        f"sigma_at_one (one, two): {WARNINGS['sigma_at_one'].advice}",
        "a_new_one: 1 run",
    }


@pytest.mark.parametrize(
    ("frame", "note"),
    [
        (runs(distill("L3", 0, 0.5) | CHECKED), "No warning in 1 run."),
        (runs(*(distill("L3", s, 0.5) | CHECKED for s in (0, 1))), "No warning in 2 runs."),
        (runs(distill("L3", 0, 0.5)), "No run logged health values."),
    ],
)
def test_a_ladder_without_warnings_notes_that(frame: pd.DataFrame, note: str):
    assert (alone(frame).notes, alone(frame).warnings) == ((note,), ())


def test_failed_runs_are_among_those_left_out_and_no_warning_of_the_ladder():
    frame = runs(distill("L3", 0, 0.5) | CHECKED, distill("L3", 1, None, status="FAILED"))
    assert alone(frame).warnings == ()
    assert "failed: 1 run" in health.section(bench_runs(frame)).warnings


def test_many_runs_are_summed_up_by_their_rungs():
    ill = [
        distill(rung, s) | {"tags.health": "non_finite", "name": f"{rung}-{s}"}
        for rung in ("L3", "L2")
        for s in (0, 1)
    ]
    well = [distill("CE", 0) | CHECKED, distill("L4", 0)]  # L4 logged no health
    (text,) = alone(runs(*ill, *well)).warnings
    assert text.startswith("non_finite (L2, L3: all 4 runs): ")
    (text,) = alone(runs(*ill, distill("L2", 2) | CHECKED, *well)).warnings
    assert text.startswith("non_finite (L2, L3: 4 of 5 runs): ")


def test_every_form_of_the_ladder_has_the_warnings(store):
    for seed in (0, 1):
        store.distill("ill", "L3", seed, 0.5, tags={tags.HEALTH: "gate_never_open"})
    store.distill("ill", "L3", 2, None, tags={tags.HEALTH: "non_finite"}, status="FAILED")
    ladder, everything = analyze(store.uri, "ill", "ladder"), analyze(store.uri, "ill")
    for report in (ladder, everything):
        (warning,) = [t for t in wording.warnings(report) if t.startswith("gate_never_open")]
        assert WARNINGS["gate_never_open"].advice in warning
        assert "non_finite (distill-L3-toy-s2)" in " ".join(wording.warnings(report))
        assert "gate_never_open" in as_html(report)
        assert warning in as_markdown(report)
        assert " ".join(warning.split()) in " ".join(as_terminal(report).split())


def test_a_test_split_that_was_read_again_is_a_warning(store):
    read = {metrics.TEST_READS: 2.0, "health/non_finite": 0.0}
    store.distill("again", "L3", 0, 0.5, metrics=read)
    for what in ("ladder", "comprehensive"):
        found = wording.warnings(analyze(store.uri, "again", what))
        assert found.count("the test split was read more than once: 1 run") == 1
