"""What `--help` says."""

import pytest

from pipeline import analyze, compare
from pipeline.__main__ import OK, VERBS, main
from pipeline.cli import help


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_of_its_own_that_fits_a_terminal(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == OK
    page = capsys.readouterr().out
    assert page.startswith(f"python -m pipeline {verb} ")
    assert max(map(len, page.splitlines())) <= 100
    assert all(page != help.of_verb(other) for other in set(VERBS) - {verb})


def test_the_first_page_names_every_verb() -> None:
    assert all(f"\n  {verb} " in help.PAGE for verb in VERBS)
    assert max(map(len, help.PAGE.splitlines())) <= 100


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("analyze", analyze.KEYS),
        ("export", ("out", *analyze.FILTERS)),
        ("compare", ("experiment", "bench", "store")),
        ("explain", ("experiment", "bench", "store")),
    ],
)
def test_a_page_names_the_options_that_the_verb_takes(verb: str, options: tuple) -> None:
    assert all(f"{name}=" in help.of_verb(verb) for name in options)
    assert set(options) <= {*analyze.KEYS, *analyze.EXPORT_KEYS, *compare.KEYS}


def test_the_page_of_analyze_names_every_analysis() -> None:
    assert all(what in help.of_verb("analyze") for what in analyze.WHAT)
