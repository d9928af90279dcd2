"""What the documents show of reports is what their commands print today, from exported stores."""

import re
from pathlib import Path

import pytest

from analysis import page, report
from analysis.evidence import Asked
from analysis.investigate import findings
from analysis.reading import Reading
from pipeline.config import ConfigError
from pipeline.reporting import analyse_command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("results.md", "analysis.md")]
MOST_BYTES = 5e6
SHOWN = re.compile(
    r"```bash\n(?:.*\n)*?python -m pipeline analyze (?P<options>store=.*)\n```\n+"
    r"```text\n(?P<text>(?:.*\n)*?)```"
)


def _blocks() -> list[tuple[dict[str, str], str]]:
    """(options of the command, the text that a page shows of it)."""
    found = [block for page in PAGES for block in SHOWN.finditer(page.read_text())]
    return [(dict(w.split("=", 1) for w in m["options"].split()), m["text"]) for m in found]


BLOCKS = _blocks()


def test_the_pages_have_tables() -> None:
    assert {options["what"] for options, _ in BLOCKS} >= {"beta", "ladder", "comprehensive"}


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


def test_the_experiment_of_an_export_need_not_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    analyse_command([f"store={ROOT / 'docs/data/ladder_digits.db.xz'}", "what=health"])
    assert "Experiment asib/digits: health" in capsys.readouterr().out


def test_a_file_where_a_folder_is_wanted_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"out=.*: a file is there; say a folder"):
        analyse_command([f"out={tmp_path / 'file'}"])
