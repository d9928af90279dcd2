"""A planted divergence of two runs is found: in identity, history and weights."""

import pandas as pd

from analysis.explain import as_words, compared_metrics, divergence
from analysis.render.text import WIDTH
from tests.analysis.frames import history

SAME = {"seed": 0, "method.adapt": "heads", "data digest": "d"}


def points(losses: list[float], weights: list[float], **more) -> dict:
    return {
        "train__loss": list(enumerate(losses)),
        "state__student": list(enumerate(weights)),
        "stage__step": [(k, 1.0) for k in range(len(losses))],
        "stage__index": [(k, 2.0) for k in range(len(losses))],
    } | more


def found_in(a: dict, b: dict, identities=(SAME, SAME), keys=("k", "k")):
    both = pd.concat([history("a", **a), history("b", **b)])
    return divergence(identities, both, ("a", "b"), keys)


def test_equal_runs_are_reported_as_equal():
    found = found_in(points([3, 2], [7, 8]), points([3, 2], [7, 8]))
    assert found.agree
    assert (found.hashed, found.compared) == (2, 8)
    assert "A and B are equal: no logged value" in as_words(found)
    assert "bit-identical after each of 2 epochs" in as_words(found)


def test_weights_differ_before_losses_do():
    found = found_in(points([3, 2, 1], [7, 8, 9]), points([3, 2, 0.5], [7, 6, 5]))
    assert found.weights == 1
    assert found.first.epoch == 1
    assert found.first.metrics == (("state/student", 8.0, 6.0),)
    assert (found.first.stage, found.first.step) == (2, "B")
    assert "differ in the steps of epoch 2" in as_words(found)
    assert "equal after epoch 1, different after epoch 2" in as_words(found)


def test_fields_of_the_identity_come_in_the_order_of_their_use():
    other = SAME | {"seed": 1, "optim.lr": 0.1}
    found = found_in(points([3], [7]), points([2], [6]), (SAME, other), ("k", "l"))
    assert found.fields == (("seed", "0", "1"), ("optim.lr", "not used", "0.1"))
    assert "differ from the start, in seed: the initial weights" in as_words(found)


def test_missing_values_differ_and_two_missing_ones_do_not():
    nan = float("nan")
    assert found_in(points([nan, 2], [7, 8]), points([nan, 2], [7, 8])).agree
    assert found_in(points([3, 2], [7, 8]), points([nan, 2], [7, 8])).first.epoch == 0


def test_a_shorter_run_is_compared_in_the_epochs_that_both_have():
    found = found_in(points([3, 2], [7, 8]), points([3], [7], lr=[(0, 1.0)]))
    assert found.first is None
    assert not found.agree
    assert found.epochs == (2, 1)
    assert found.alone == ((), ("lr",))
    text = as_words(found)
    assert "are equal in all epochs that both have: A has 2 epochs, B 1" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_absent_history_and_hashes_are_reported():
    text = as_words(found_in({}, {}))
    assert "the runs logged no value in common" in text
    assert "only one run, or none, logged their hashes" in text


def test_time_and_memory_are_not_compared():
    assert compared_metrics(["cost/a", "val/top1", "test/top1"]) == ["val/top1"]
