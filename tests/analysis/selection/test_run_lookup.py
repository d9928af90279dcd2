"""A word means the run that it should, or is one message with the reason."""

import pytest

from analysis import tags
from analysis.selection.run_lookup import RunNames, matching, select_runs, unknown
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
    return [one.run["run_id"] for one in select_runs(FRAME, words, **more)]


def test_folders_of_the_local_store_match_by_the_same_rules():
    folders = [
        RunNames("distill", "abcd01", "distill-L3-digits-s0", "L3"),
        RunNames("distill", "abcd02", "distill-L3-digits-s1", "L3"),
        RunNames("finetune", "beef01", "finetune-resnet8-digits-s0"),
    ]
    wanted = {"abcd01": [0], "abcd": [0, 1], "L3": [0, 1], "finetune-resnet8-digits-s0": [2]}
    assert {word: matching(word, folders) for word in wanted} == wanted
    assert [matching(word, folders) for word in ("abc", "", "digits", "9999")] == [[]] * 4
    assert "did you mean distill-L3-digits-s1" in unknown("distill-L3-digits-s9", folders)
    assert "no run of this id, key, name or rung in here; " in unknown("0000", folders, " in here")


def test_a_whole_key_comes_before_the_beginning_of_another():
    keys = [RunNames("distill", key, "same") for key in ("abcd01", "abcd")]
    assert matching("abcd", keys) == [1]


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


def test_a_key_means_the_original_and_an_id_its_replay():
    assert ids("3333") == ["bbbb0000"]
    assert ids("cccc") == ["cccc0000"]


def test_rungs_are_taken_at_the_lowest_seed_that_all_have():
    assert ids("L2", "L3") == ["aaaa1111", "bbbb0000"]
    assert ids("L2") == ["aaaa0000"]
    assert [len(one.group) for one in select_runs(FRAME, ["L2", "L3"])] == [2, 2]


def test_the_other_seeds_of_a_run_are_its_group():
    (one,) = select_runs(FRAME, ["L3-s2"])
    assert one.seed == 2
    assert sorted(one.group["run_id"]) == ["bbbb0000", "bbbb1111"]


def test_runs_of_one_name_are_listed_with_their_differences():
    frame = runs(
        *(
            row("L2", 0, f"{k}aaa0000", f"{k}{k}11", name="same", **{"params.method.ib_beta": beta})
            for k, beta in enumerate(("0.1", "0.2"))
        )
    )
    with pytest.raises(ValueError, match=r"same: 2 runs .*: 0aaa0000 \(method.ib_beta=0.1\), 1aaa"):
        select_runs(frame, ["same"])


def test_all_errors_are_one_message():
    with pytest.raises(ValueError) as error:
        select_runs(FRAME, ["aaaa", "L2-s9", "L4"])
    ambiguous, absent, unfinished = str(error.value).split("\n")
    assert "aaaa: 2 runs match: aaaa0000 (L2-s0, finished)" in ambiguous
    assert "did you mean L2-s" in absent
    assert "L4: no run of it has finished: dddd0000 (L4-s0, failed)" in unfinished


def test_a_word_that_means_no_run_names_the_experiment_that_was_read():
    with pytest.raises(ValueError) as error:
        select_runs(FRAME, ["CE"], experiment="asib")
    assert "rung in experiment 'asib' (experiment=NAME chooses another)" in str(error.value)


def test_a_rung_of_two_benches_has_to_be_chosen():
    both = runs(distill("L2", 0, 0.5), distill("L2", 0, 0.6, bench="other"))
    with pytest.raises(ValueError, match=r"bench=other, bench=toy"):
        select_runs(both, ["L2"])
    assert select_runs(both, ["L2"], bench="other")[0].run["run_id"] == "r1"
