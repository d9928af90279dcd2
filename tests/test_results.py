"""The tables of docs/results.md are what its own commands print today, from the exported stores."""

import re
from pathlib import Path

import pytest

from analysis import page, report
from analysis.evidence import Asked
from analysis.investigate import findings
from analysis.reading import Reading

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
MOST_BYTES = 5e6
SHOWN = re.compile(
    r"```bash\n(?:.*\n)*?python -m pipeline analyze (?P<options>store=.*)\n```\n+"
    r"```text\n(?P<text>(?:.*\n)*?)```"
)


def _blocks() -> list[tuple[dict[str, str], str]]:
    """(options of the command, the text that the page shows of it)."""
    found = SHOWN.finditer(PAGE.read_text())
    return [(dict(w.split("=", 1) for w in m["options"].split()), m["text"]) for m in found]


BLOCKS = _blocks()


def test_the_page_has_tables() -> None:
    assert {options["what"] for options, _ in BLOCKS} >= {"beta", "ladder"}


@pytest.mark.parametrize(("options", "text"), BLOCKS, ids=[b[0]["what"] for b in BLOCKS])
def test_a_table_is_made_from_its_export(options: dict[str, str], text: str) -> None:
    asked = Asked(options.get("bench"))
    reading = Reading(str(ROOT / options["store"]), options["experiment"], asked)
    what = options["what"]
    plain = what == "ladder"
    said = report.report(reading).text if plain else page.as_terminal(findings(reading, what))
    assert len(text) > 300
    assert text.strip() in said


def test_the_exports_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs" / "data").glob("*")]
    assert 0 < sum(sizes) < MOST_BYTES
