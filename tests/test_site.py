"""The documentation site: built without warnings, complete, and nothing loaded from the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(?:https?:)?//")
READING_ORDER = [
    "Start",
    "Tutorial",
    "The ladder",
    "Sweeps and clusters",
    "Analysis",
    "Method",
    "Extending",
    "Reference",
    "Results",
    "Changelog",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link, anchor or docstring or a page without a place fails here."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_navigation_is_in_reading_order() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    nav = yaml.safe_load("nav:" + text.partition("\ntheme:")[0])["nav"]
    assert [title for entry in nav for title in entry] == READING_ORDER


def test_every_document_has_a_page(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "changelog"}
    assert documents <= {path.stem for path in site.glob("*.html")}


def test_docstrings_are_on_the_page_of_the_interface(site: Path) -> None:
    text = (site / "interface.html").read_text(encoding="utf-8")
    for name in ("losses.attention_transfer", "bottleneck.IBMBM", "data.load", "models.build"):
        assert f'id="trainers.{name}"' in text
    assert 'id="pipeline.identity.run_key"' in text
    assert 'id="analysis.runs.load_history"' in text


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 50
    assert "arithmatex" not in text


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert pages
    assert not [path.name for path in pages if LOADED.search(path.read_text(encoding="utf-8"))]
