"""What `--help` says."""

import pytest

from pipeline import comparing, reporting, usage
from pipeline.__main__ import OK, VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_of_its_own_that_fits_a_terminal(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == OK
    page = capsys.readouterr().out
    assert page.startswith(f"python -m pipeline {verb} ")
    assert max(map(len, page.splitlines())) <= 100
    assert all(page != usage.of_verb(other) for other in set(VERBS) - {verb})


def test_the_first_page_names_every_verb() -> None:
    assert all(f"\n  {verb} " in usage.PAGE for verb in VERBS)
    assert max(map(len, usage.PAGE.splitlines())) <= 100


@pytest.mark.parametrize(
    ("verb", "options"),
    [("analyze", reporting.KEYS), ("export", ("out", *reporting.FILTERS)),
     ("compare", ("experiment", "bench", "store")), ("explain", ("experiment", "bench", "store"))],
)  # fmt: skip
def test_a_page_names_the_options_that_the_verb_takes(verb: str, options: tuple) -> None:
    assert all(f"{name}=" in usage.of_verb(verb) for name in options)
    assert set(options) <= {*reporting.KEYS, *reporting.EXPORT_KEYS, *comparing.KEYS}


def test_the_page_of_analyze_names_every_analysis() -> None:
    assert all(what in usage.of_verb("analyze") for what in reporting.WHAT)
