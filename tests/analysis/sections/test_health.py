"""What went wrong, or looks as if, on frames typed by hand."""

import math

from analysis.sections import health
from tests.analysis.frames import bench_runs, distill, history, runs


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
    found = health.study(bench_runs(kept, *points))
    assert found.warnings == ("the test split was read more than once: 1 run",)
    assert found.run_ids == ("r0",)


def test_health_says_that_there_is_nothing():
    quiet = health.study(bench_runs(runs(distill("CE", 0, 0.5))))
    assert quiet.sentences == ("No warning in 1 run.",)
    assert quiet.notes == ("No run logged health values of its own.",)
