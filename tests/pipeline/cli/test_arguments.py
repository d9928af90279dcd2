"""Words that mean nothing here are one message, for every verb and for studies."""

from __future__ import annotations

import pytest

from pipeline.__main__ import main
from sweeps.__main__ import main as sweep


@pytest.mark.parametrize("start", [["distill"], ["analyze"], ["sync"], ["sweep", "beta"]])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("seed=1\r", r"'seed=1\r': a control character .*Windows' line ends"),
        ("runtime.store=a\nb", r"'runtime.store=a\nb': a control character"),
        ("runtime.store=\udcff", "no UTF-8"),
    ],
)
def test_strange_words(
    start: list[str], word: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*start, word]
    assert (sweep(words[1:]) if start[0] == "sweep" else main(words)) == 2
    message = capsys.readouterr().err
    first, *others = reason.split(" .*")
    assert first in message
    assert all(other in message for other in others)


def test_letters_of_any_script_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(["nope", "runtime.experiment=猫 é\u00a0β"]) == 2
    assert "control" not in capsys.readouterr().err
