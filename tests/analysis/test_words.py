"""The words of a command go through one text unchanged."""

import shlex

import pytest

from analysis.words import joined, separated


@pytest.mark.parametrize(
    "words",
    [
        ["cfg=L3", "method.ib_beta=1e-3"],
        ["runtime.experiment=it's 100% β"],
        ['data.root=/a b/"c"', "runtime.store=~/s", "x=$HOME;ls", "y="],
        [],
    ],
)
def test_words_come_back(words: list[str]) -> None:
    assert separated(joined(words)) == words == shlex.split(joined(words))


def test_unquoted_words_of_earlier_versions_are_read() -> None:
    assert separated("cfg=L3 seed=0") == ["cfg=L3", "seed=0"]
    assert separated("runtime.experiment=it's 5") == ["runtime.experiment=it's", "5"]
