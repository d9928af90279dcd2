"""The report of a real store, in each of its forms."""

import re
import shutil
import subprocess

import pytest
from markupsafe import escape
from matplotlib.figure import Figure

from analysis import tags
from analysis.render import wording
from analysis.render.html import as_html
from analysis.render.markdown import as_markdown, as_note
from analysis.render.text import WIDTH, as_terminal
from analysis.report_model import Report, ReportFigure, Section
from analysis.runs import load_runs
from analysis.sections.registry import COMPREHENSIVE, SECTIONS, analyze
from analysis.selection.filters import RunFilter, chosen
from trainers import metrics

NAME = "asib/page"


@pytest.fixture(scope="module")
def found(store):
    for seed in range(3):
        for rung, base in (("CE", 0.50), ("L4", 0.60)):
            values = {metrics.VAL_TOP1: [(0, 0.4), (1, base)], metrics.RUN_SECONDS: 10.0}
            run_tags = {tags.STUDENT: "a<b&c", tags.GIT: f"g{seed}"}
            store.distill(NAME, rung, seed, base + seed / 100, metrics=values, tags=run_tags)
    return analyze(store.uri, NAME)


def test_the_page_needs_nothing_but_itself(found):
    html = as_html(found)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", html)
    assert html.count("<script") == 1
    assert "fetch(" not in html
    assert "http-equiv" not in html
    assert "@import" not in html
    assert html.count("<figure ") == sum(len(study.figures) for study in found.sections) > 1
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_every_form_answers_first_and_names_what_is_missing(found):
    answer = "Primary claim: L4 − CE: +10.00 points, 95 % interval +10.00 to +10.00, n = 3"
    missing = f"-m bench=toy runtime.experiment={NAME} cfg=KD,L0,L1,L2,L3 seed=0,1,2"
    command = f"python -m pipeline distill {missing}"
    for text in (as_html(found), as_markdown(found), as_terminal(found)):
        plain = " ".join(text.replace("\\\n", " ").split())
        assert answer in plain
        assert command in plain
        assert plain.index(answer) < plain.index(command)
    assert answer in as_note(found, "what=comprehensive")
    assert "`python -m pipeline analyze what=comprehensive`" in as_note(found, "what=comprehensive")


def test_a_gap_is_named_once_with_one_command_a_kind(found):
    text = as_terminal(found)
    missing = text.partition("\nMissing:\n")[2]
    lines = missing.replace(" \\\n", " ").splitlines()
    commands = [" ".join(line.split()) for line in lines if line.startswith("    python")]
    every = [gap.command for study in found.sections for gap in study.gaps]
    assert 0 < len(commands) < len(set(every))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"Runs are missing: {len(commands)} commands make them." in " ".join(text.split())
    for form in (as_html(found), as_markdown(found)):
        assert [form.count(escape(command)) for command in commands] == [1] * len(commands)


def test_every_claim_is_said_once(found):
    for text in (as_html(found), as_markdown(found)):
        plain = " ".join(text.split())
        for section in found.sections:
            for sentence in {*section.sentences, *section.summary}:
                assert plain.count(escape(sentence)) == 1, (section.name, sentence)


def test_the_first_figure_and_table_come_before_the_rest(found):
    html = as_html(found)
    places = [html.index(f'id="{one}"') for one in ("summary", "figure-1", "ladder-toy-table-1")]
    assert places == sorted(places)
    assert places[-1] < html.index('id="ladder-toy-table-2"') < html.index('id="figure-2"')


def test_the_contents_lead_to_what_is_there(found):
    html = as_html(found)
    targets = re.findall(r'href="#([^"]+)"', html)
    assert len(targets) > len(found.sections)
    ids = re.findall(r' id="([^"]+)"', html)
    assert set(targets) <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium, which runs the page")
def test_a_click_on_a_heading_sorts_the_table(found, tmp_path):
    click = "document.querySelectorAll('#ladder-toy thead button')[2].click()"
    page = tmp_path / "page.html"
    page.write_text(as_html(found).replace("</body>", f"<script>{click};{click}</script></body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    command = ["chromium", *options, "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    order = [re.findall(rf"<tr><td>{rung}</td>", shown)[0] for rung in ("CE", "L4")]
    assert 'aria-sort="ascending"' in shown
    assert shown.index(order[0]) < shown.index(order[1])
    page.write_text(page.read_text().replace(f"{click};{click}", click))
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert 'aria-sort="descending"' in shown
    assert shown.index(order[1]) < shown.index(order[0])


def test_every_run_behind_a_number_is_named(found):
    html = as_html(found)
    assert len(found.sources) == 6
    assert all(run in html for run in found.sources)
    assert all(source.link is None for source in found.sources.values())  # a file has no pages


def test_names_from_the_store_are_no_markup(store):
    store.distill("evil", "L3", 0, 0.5, tags={tags.BENCH: "<script>x</script>"})
    assert "<script>x" not in as_html(analyze(store.uri, "evil"))


def test_an_empty_experiment_says_what_to_run(store):
    store.run("only launches", "launch", tags={tags.STAGE: "launch"})
    empty = analyze(store.uri, "only launches")
    assert wording.NOTHING in as_html(empty)
    assert wording.NOTHING in as_terminal(empty)
    filters = RunFilter(tags={tags.STAGE: "launch"})
    filtered = analyze(store.uri, "only launches", filters=filters)
    assert "No training run matches tag.stage=launch" in as_terminal(filtered)
    assert wording.NOTHING not in as_html(filtered)


def test_a_section_without_sentences_says_what_it_has():
    figure = ReportFigure("toy", Figure(), "A curve.")
    section = Section("distance", "toy", "Logit distance", figures=(figure,))
    report = Report("asib", "distance", "", "sqlite:///mlflow.db", 1, (section,), {})
    assert "Logit distance: 1 figure." in as_html(report)
    assert "Logit distance: 1 figure." in as_terminal(report)
    assert wording.NOTHING not in as_terminal(report)
    spoken = Section("overlap", "toy", "Class overlap", sentences=("As good.",))
    both = report._replace(what="comprehensive", sections=(section, spoken))
    (toy,) = wording.summary(both)
    assert toy == ("toy", ["Logit distance: 1 figure.", "Class overlap: As good."])


def test_filters(store, found):
    runs = load_runs(store.uri, NAME)
    assert len(chosen(runs, RunFilter(tags={tags.GIT: "g1"}))) == 2
    assert len(chosen(runs, RunFilter(since="2023-11-14", until="2023-11-14"))) == len(runs)
    began = r"no run started then \(first 2023-11-14T\S+, last 2023-11-14T"
    for outside in (RunFilter(until="2023-11-13"), RunFilter(since="2023-11-15")):
        with pytest.raises(ValueError, match=began):
            chosen(runs, outside)
    of_seed = chosen(runs, RunFilter(tags={tags.SEED: "1"}))
    students = of_seed[of_seed["tags.stage"] == "distill"]
    assert set(students["tags.seed"]) == {"1"}
    teachers = runs["tags.stage"].eq("finetune")
    assert of_seed["tags.stage"].eq("finetune").sum() == teachers.sum(), "they teach every seed"
    with pytest.raises(ValueError, match="since=2026-02-01 is after until=2026-01-01"):
        chosen(runs, RunFilter(since="2026-02-01", until="2026-01-01"))
    with pytest.raises(ValueError, match=r"since=soon: no date \(allowed: 2026-01-31"):
        chosen(runs, RunFilter(since="soon"))
    only = analyze(store.uri, NAME, "health", RunFilter(tags={tags.GIT: "g1"}))
    assert [study.name for study in only.sections] == ["health"]
    assert "filtered by tag.git=g1" in wording.about(only)


def test_an_unknown_analysis_names_all_that_there_are(store):
    with pytest.raises(ValueError, match="ladr: unknown") as error:
        analyze(store.uri, NAME, "ladr")
    assert all(name in str(error.value) for name in (*SECTIONS, COMPREHENSIVE))
