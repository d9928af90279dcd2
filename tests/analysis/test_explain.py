"""Where two runs part is told as it is: planted in identity, history and weights."""

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


def told(a: dict, b: dict, identities=(SAME, SAME), keys=("k", "k")):
    both = pd.concat([history("a", **a), history("b", **b)])
    return divergence(identities, both, ("a", "b"), keys)


def test_runs_that_agree_everywhere_are_said_to():
    found = told(points([3, 2], [7, 8]), points([3, 2], [7, 8]))
    assert found.agree
    assert (found.hashed, found.compared) == (2, 8)
    assert "agree everywhere" in as_words(found)
    assert "bit for bit equal after each of 2 epochs" in as_words(found)


def test_weights_show_what_losses_do_not_yet():
    found = told(points([3, 2, 1], [7, 8, 9]), points([3, 2, 0.5], [7, 6, 5]))
    assert found.weights == 1
    assert found.parting.epoch == 1
    assert found.parting.metrics == (("state/student", 8.0, 6.0),)
    assert (found.parting.stage, found.parting.step) == (2, "B")
    assert "part in the steps of epoch 2" in as_words(found)
    assert "equal after epoch 1, not equal after epoch 2" in as_words(found)


def test_identity_comes_first_in_the_order_of_a_run():
    other = SAME | {"seed": 1, "optim.lr": 0.1}
    found = told(points([3], [7]), points([2], [6]), (SAME, other), ("k", "l"))
    assert found.fields == (("seed", "0", "1"), ("optim.lr", "not used", "0.1"))
    assert "part before they start, at seed: the first weights" in as_words(found)


def test_missing_values_differ_and_two_missing_ones_do_not():
    nan = float("nan")
    assert told(points([nan, 2], [7, 8]), points([nan, 2], [7, 8])).agree
    assert told(points([3, 2], [7, 8]), points([nan, 2], [7, 8])).parting.epoch == 0


def test_a_shorter_run_agrees_as_far_as_it_goes():
    found = told(points([3, 2], [7, 8]), points([3], [7], lr=[(0, 1.0)]))
    assert found.parting is None
    assert not found.agree
    assert found.epochs == (2, 1)
    assert found.alone == ((), ("lr",))
    text = as_words(found)
    assert "agree as far as both go: A has 2 epochs, B 1" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_no_history_and_no_hashes_are_said():
    text = as_words(told({}, {}))
    assert "no value that both logged" in text
    assert "not both runs logged their hashes" in text


def test_time_and_memory_are_not_compared():
    assert compared_metrics(["cost/a", "val/top1", "test/top1"]) == ["val/top1"]
