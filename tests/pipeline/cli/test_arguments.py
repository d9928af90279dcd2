"""Words that mean nothing here are one message, for every verb and for studies."""

from __future__ import annotations

import pytest

from pipeline.__main__ import main
from pipeline.cli.arguments import strange_words
from pipeline.config import ConfigError, compose
from sweeps.__main__ import main as sweep


@pytest.mark.parametrize("start", [["distill"], ["analyze"], ["sync"], ["sweep", "beta"]])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("seed=1\r", r"'seed=1\r': a control character .*Windows' line ends"),
        ("runtime.store=a\nb", r"'runtime.store=a\nb': a control character"),
        ("runtime.store=\udcff", "no UTF-8"),
        ("--hlep", "--hlep: no such flag; did you mean --help"),
        ("-x", "-x: no such flag (allowed: --help"),
        ("--config-dir", "--config-dir: a folder is needed"),
        ("=", " = : no blanks around it"),
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


def test_flags_and_forms_that_are_meant() -> None:
    assert strange_words(["-m", "cfg=L2", "--method.tau", "2", "--cancel"]) == []
    assert strange_words(["cfg", "=", "L3"]) == ["cfg = L3: no blanks around it, as in cfg=L3"]
    with pytest.raises(ConfigError, match="'L3' is not of the form key=value; did you mean cfg=L3"):
        compose(["L3"])
