"""Seeds that failed are a part of the result."""

import pytest
from scipy import stats

from analysis import tags
from analysis.selection.attempts import attempts, fisher
from tests.analysis.frames import bench_runs, distill, runs


def failed(rung: str, seed: int, **more) -> dict:
    return distill(rung, seed, None, status="FAILED", **more)


def test_seeds_that_failed_are_counted_once_and_not_where_they_finished_later() -> None:
    of = bench_runs(
        runs(
            distill("KD", 0, 0.5),
            failed("KD", 0),
            failed("KD", 1),
            failed("KD", 1),
            distill("KD", 2, None, status="RUNNING"),
            distill("KD", 3, 1.7),
            failed("L4", 0),
        )
    )
    found = attempts(of.runs, of.kept)
    assert (found["KD"].finished, found["KD"].failed) == ({0}, {1, 3})
    assert (found["L4"].finished, found["L4"].failed) == (frozenset(), {0})


def test_failures_are_compared_with_those_of_the_controls_by_fishers_test() -> None:
    kept = [distill(r, s, 0.5 + s / 100) for r in ("CE", "KD") for s in range(10)]
    kept += [distill("L4", s, 0.5) for s in range(4)] + [failed("L4", s) for s in range(4, 10)]
    kept += [distill("L3", s, 0.5) for s in range(9)] + [failed("L3", 9)]
    of = bench_runs(runs(*kept))
    found = attempts(of.runs, of.kept)
    more = found["L4"].against([found["CE"], found["KD"]])
    assert more is not None
    assert (more.seeds, more.others, more.of_others) == (10, 0, 20)
    assert more.p < 0.001
    assert found["L3"].against([found["CE"], found["KD"]]) is None
    assert found["L4"].against([]) is None


@pytest.mark.parametrize(
    "table", [(6, 4, 0, 20), (1, 9, 1, 9), (0, 3, 2, 5), (3, 0, 0, 0), (2, 3, 9, 1)]
)
def test_p_is_that_of_scipy(table: tuple[int, int, int, int]) -> None:
    expected = stats.fisher_exact([table[:2], table[2:]], alternative="greater").pvalue
    assert fisher(*table) == pytest.approx(expected, rel=1e-12)


def test_failures_of_another_configuration_are_not_those_of_the_one_that_is_shown() -> None:
    recipe = f"tags.{tags.RECIPE}"
    of = bench_runs(
        runs(
            failed("L4", 3, **{recipe: "b"}),
            distill("L4", 0, 0.4, **{recipe: "b"}),
            *(distill("L4", s, 0.5, **{recipe: "a"}) for s in range(3)),
            distill("KD", 0, 0.5, **{recipe: "k"}),
        )
    )
    found = attempts(of.runs, of.kept)
    assert (found["L4"].failed, found["L4"].configurations) == (frozenset(), 2)
