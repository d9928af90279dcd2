"""Texts of `--help` and `--version`."""

import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from pipeline import analyze, compare
from pipeline.__main__ import VERBS, main
from pipeline.cli import help
from pipeline.config.groups import CONF, described
from sweeps.__main__ import main as sweeps
from sweeps.__main__ import page as page_of_sweeps

HEAVY = ("torch", "mlflow", "hydra", "omegaconf", "pandas", "numpy", "optuna", "matplotlib", "rich")


def test_help_and_version_import_nothing_heavy() -> None:
    """In an interpreter that has imported nothing yet."""
    code = f"""if True:
        import sys
        from pipeline.__main__ import VERBS, main
        from sweeps.__main__ import main as sweeps
        pages = [["--help"], ["--version"], ["distil"], *([verb, "--help"] for verb in VERBS)]
        assert [main(page) for page in pages] == [0, 0, 2, *[0] * len(VERBS)]
        assert [sweeps([flag]) for flag in ("--help", "--version")] == [0, 0]
        assert [sweeps([study, "--help"]) for study in ("beta", "proof/twins")] == [0, 0]
        print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("function", VERBS.values())
def test_every_verb_is_a_function(function: str) -> None:
    assert callable(resolve_name(function))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_own_page_that_fits_a_terminal(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"python -m pipeline {verb} ")
    assert max(map(len, page.splitlines())) <= 100
    assert all(page != help.of_verb(other) for other in set(VERBS) - {verb})


def test_the_first_page_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out == help.page() + "\n"
    assert all(f"\n  {verb} " in help.page() for verb in VERBS)
    assert max(map(len, (help.page() + page_of_sweeps()).splitlines())) <= 100


@pytest.mark.parametrize("group", ["cfg", "method", "bench", "budget", "experiment"])
def test_choices_are_those_of_conf_with_the_comments_of_their_files(group: str) -> None:
    short, long = (" ".join(page.split()) for page in (help.page(), help.of_verb("distill")))
    for name, comment in described(group).items():
        assert f" {name} " in f"{short} "
        assert f"{name} {' '.join(comment.split()[:3]).removesuffix('.')}" in long


def test_the_page_of_studies_is_that_of_their_files() -> None:
    page = " ".join(page_of_sweeps().split())
    assert all(
        f"{name} {' '.join(comment.split()[:3])}" in page
        for name, comment in described("study").items()
    )


def test_a_description_is_the_first_sentence_of_the_comment() -> None:
    methods = help.table("method").splitlines()
    assert "    kd_ls         KD of standardised logits (Sun et al. 2024)" in methods


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text())["project"]
    assert main(["--version"]) == sweeps(["--version"]) == 0
    assert capsys.readouterr().out == 2 * f"asib {project['version']}\n"


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


def test_a_report_of_an_exported_store_needs_no_torch(tmp_path: Path) -> None:
    """It takes seconds and a third of a gigabyte."""
    store = CONF.parent / "docs" / "data" / "ladder_digits.db.xz"
    code = f"""if True:
        import sys
        from pipeline.__main__ import main
        assert main(["analyze", "store={store}", "out={tmp_path}"]) == 0
        print([name for name in ("torch", "hydra", "optuna") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plan_needs_no_package_that_reads_or_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the time of its start, also of every verb that trains but main."""
    unused = ("pandas", "scipy", "matplotlib", "sqlalchemy", "mlflow", "optuna", "triton")
    code = f"""if True:
        import sys
        from pipeline.__main__ import main
        assert main(["distill", "cfg=CE", "bench=digits", "--dry-run"]) == 0
        print([name for name in {unused} if name in sys.modules])
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # there is none
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
