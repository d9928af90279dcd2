"""What a person types is the run that they mean, or one message that says why not."""

import pytest

from analysis import tags
from analysis.selection.run_lookup import sides
from tests.analysis.frames import distill, runs


def row(rung: str, seed: int, run_id: str, key: str, **more) -> dict:
    run_tags = {f"tags.{tags.RUN_KEY}": key, f"tags.{tags.RECIPE}": f"recipe {rung}"}
    return (
        distill(rung, seed, 0.5) | {"run_id": run_id, "name": f"{rung}-s{seed}"} | run_tags | more
    )


FRAME = runs(
    row("L2", 0, "aaaa0000", "1111aa"),
    row("L2", 1, "aaaa1111", "2222aa"),
    row("L3", 1, "bbbb0000", "3333aa"),
    row("L3", 2, "bbbb1111", "4444aa"),
    row("L3", 1, "cccc0000", "3333aa", **{f"tags.{tags.REUSED}": "true"}),
    row("L4", 0, "dddd0000", "5555aa", status="FAILED"),
)


def ids(*words: str, **more) -> list[str]:
    return [side.run["run_id"] for side in sides(FRAME, words, **more)]


@pytest.mark.parametrize(
    ("word", "run_id"),
    [
        ("aaaa1111", "aaaa1111"),
        ("aaaa1", "aaaa1111"),
        ("2222aa", "aaaa1111"),
        ("2222", "aaaa1111"),
        ("L2-s1", "aaaa1111"),
        ("dddd", "dddd0000"),
    ],
)
def test_a_run_by_id_key_beginning_or_name(word, run_id):
    assert ids(word) == [run_id]


def test_of_one_key_the_original_is_meant_and_a_replay_by_its_id_alone():
    assert ids("3333") == ["bbbb0000"]
    assert ids("cccc") == ["cccc0000"]


def test_rungs_stand_at_the_lowest_seed_that_all_have():
    assert ids("L2", "L3") == ["aaaa1111", "bbbb0000"]
    assert ids("L2") == ["aaaa0000"]
    assert [len(side.group) for side in sides(FRAME, ["L2", "L3"])] == [2, 2]


def test_the_other_seeds_of_a_run_are_its_group():
    (side,) = sides(FRAME, ["L3-s2"])
    assert side.seed == 2
    assert sorted(side.group["run_id"]) == ["bbbb0000", "bbbb1111"]


def test_runs_of_one_name_are_told_apart_by_what_differs():
    frame = runs(
        *(
            row("L2", 0, f"{k}aaa0000", f"{k}{k}11", name="same", **{"params.method.ib_beta": beta})
            for k, beta in enumerate(("0.1", "0.2"))
        )
    )
    with pytest.raises(ValueError, match=r"same: 2 runs .*: 0aaa0000 \(method.ib_beta=0.1\), 1aaa"):
        sides(frame, ["same"])


def test_all_mistakes_are_one_message():
    with pytest.raises(ValueError) as error:
        sides(FRAME, ["aaaa", "L2-s9", "L4"])
    ambiguous, unknown, unfinished = str(error.value).split("\n")
    assert "aaaa: 2 runs are called so: aaaa0000 (L2-s0, finished)" in ambiguous
    assert "did you mean L2-s" in unknown
    assert "L4: no run of it has finished: dddd0000 (L4-s0, failed)" in unfinished


def test_a_word_that_means_no_run_names_the_experiment_that_was_read():
    with pytest.raises(ValueError) as error:
        sides(FRAME, ["CE"], experiment="asib")
    assert "rung in experiment 'asib' (experiment=NAME chooses another)" in str(error.value)


def test_a_rung_of_two_benches_asks_which():
    both = runs(distill("L2", 0, 0.5), distill("L2", 0, 0.6, bench="other"))
    with pytest.raises(ValueError, match=r"bench=other, bench=toy"):
        sides(both, ["L2"])
    assert sides(both, ["L2"], bench="other")[0].run["run_id"] == "r1"
