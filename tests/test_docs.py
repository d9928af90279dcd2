"""The documents: made pages are current, links lead somewhere, commands are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import VERBS
from pipeline.config import Config, compose, reference
from pipeline.config.fields import leaves
from pipeline.config.groups import CONF
from pipeline.config.reference import COMMAND, ROOT
from pipeline.config.sweep import expand
from pipeline.launch import multirun
from sweeps import run_study
from sweeps.study_file import read_study

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```$", re.M | re.S)
CALL = r"(?:python -m|job\.sbatch) {} (?:work )?([a-z][^`\n|#…]*)"
COMPOSING = ("main", "distill")  # the other verbs have options of their own
MADE = [ROOT / "docs" / "configuration.md"]  # as a whole
ADDED = ROOT / "docs" / "extending.md"  # its commands need what it adds
HAND_WRITTEN = [path for path in DOCUMENTS if path not in [*MADE, ADDED]]
OF_WORKERS = ("workers", "launcher", "trials")
LONGEST_MEAN = 16  # words a sentence


@pytest.mark.parametrize("path", sorted(reference.pages()), ids=lambda path: path.name)
def test_a_made_page_is_what_the_code_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    assert text == reference.pages()[path], f"{path.name} is not current: run {COMMAND}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(path: Path) -> None:
    targets = LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8")))
    files = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t)]
    assert not [name for name in files if name and not (path.parent / name).exists()]


def test_the_readme_names_the_folders_and_files_of_the_tree() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    folders, files = section.split("| to change | open |")
    named = re.findall(r"^\| `([\w/]+/)` \|", folders, re.M)
    tops = ("analysis", "benchmarks", "pipeline", "sweeps", "trainers")
    inits = [path for top in tops for path in (ROOT / top).glob("**/__init__.py")]
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in inits}
    assert packages <= set(named)
    opened = re.findall(r"\| `([\w./]+)` \|$", files, re.M)
    assert len(opened) > 10
    assert not [path for path in [*named, *opened] if not (ROOT / path).exists()]


def test_every_document_is_listed_in_the_readme() -> None:
    listed = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= listed
    assert {"CHANGELOG.md", "CITATION.cff"} <= listed


def _calls(program: str) -> list[tuple[str, ...]]:
    """The distinct commands of the hand-written documents, each as its words."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in HAND_WRITTEN)
    found = re.findall(CALL.format(program), text.replace("\\\n", " "))
    return sorted({tuple(shlex.split(call)) for call in found})


def test_commands_are_accepted() -> None:
    calls = _calls("pipeline")
    assert len(calls) > 40
    for verb, *rest in calls:
        assert verb in VERBS, verb
        overrides = [text for text in rest if "=" in text]
        if "-m" in rest:
            _, overrides, errors = multirun.take_options(overrides)
            assert not errors
            combinations = expand(overrides)
            compose(list(combinations[0]))
            compose(list(combinations[-1]))
        elif verb in COMPOSING and not any("PATH" in text for text in overrides):
            compose(overrides)


def test_commands_of_studies_are_accepted() -> None:
    """Those with options of their own; tests/sweeps reads every study as its file has it."""
    calls = _calls("sweeps")
    assert len(calls) > 10
    for name, *rest in calls:
        overrides = [text for text in rest if text.partition("=")[0] not in OF_WORKERS]
        if any("=" in text for text in overrides):
            run_study.read(name, [text for text in rest if "=" in text])
        else:
            read_study(name)


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.name)
def test_sentences_are_short(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    prose = re.sub(r"^(\||#|!\[|:::).*|\]\([^)]*\)|`[^`]*`", "x", text, flags=re.M)
    items = re.split(r"\n\s*\n|\n(?= *(?:[-*]|\d\.) )", prose)
    sentences = [one for item in items for one in re.split(r"(?<=[.?!:])\s+", item)]
    words = [len(re.findall(r"\w[\w'%.,-]*", one)) for one in sentences]
    counted = [count for count in words if count > 1]
    assert sum(counted) / len(counted) < LONGEST_MEAN


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_the_locked_version(path: Path) -> None:
    (locked,) = re.findall(r"^mlflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)
    named = re.findall(r"mlflow==([\d.]+)", path.read_text(encoding="utf-8"))
    assert set(named) <= {locked}


def test_citation_has_what_the_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The ASIB studies authors"}]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert citation["version"] == version[1]


def test_every_option_has_its_row() -> None:
    """What the check of overrides knows is what the page lists."""
    rows = set(re.findall(r"^\| `([\w.]+)` ", reference.configuration_page(), re.M))
    assert {key for key, _, _ in leaves(Config)} == rows


def test_a_row_says_what_is_part_of_the_key() -> None:
    rows = re.findall(r"^\| `.*", reference.configuration_page(), re.M)
    options = [row.split(" | ") for row in rows if row.count(" | ") >= 5]
    cells = {cells[0].strip("| `"): cells[4] for cells in options}
    assert cells["seed"] == cells["optim.lr"] == "yes"
    assert cells["runtime.store"] == cells["cfg"] == cells["data.root"] == "no"
    assert "`method.num_stages` is above 1" in cells["method.cccp_alpha"]
    nested = "where the teacher is not given by `ckpt` and the optimiser is sgd"
    assert cells["teacher.0.recipe.optim.nesterov"] == nested


def test_options_that_rungs_set_are_listed_before_those_that_no_rung_sets() -> None:
    section = reference.configuration_page().split("### `method.` of asib\n")[1].split("\n### ")[0]
    listed = re.findall(r"^\| `method\.(\w+)` ", section, re.M)
    text = "".join(path.read_text() for path in (CONF / "cfg").glob("*.yaml"))
    by_rungs = [listed.index(key) for key in re.findall(r"^  (\w+): ", text, re.M) if key in listed]
    assert max(by_rungs) < listed.index("teacher_index") < listed.index("ema_weight")
