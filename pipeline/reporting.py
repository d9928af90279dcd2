"""The analyze verb: print what the store says, save report and figures, log all as a run."""

from __future__ import annotations

import os
from pathlib import Path

from analysis import page, report, style
from analysis.evidence import Asked
from analysis.investigate import COMPREHENSIVE, STUDIES, Findings, findings
from analysis.reading import Reading
from analysis.runs import column, load_runs
from pipeline import names
from pipeline.config import ConfigError, compose
from pipeline.console import out, say
from pipeline.destination import Destination
from pipeline.fields import nearest
from pipeline.groups import options_of
from pipeline.shell import Shell

KEYS = ("what", "bench", "experiment", "since", "until", "out")
WHAT = (*STUDIES, COMPREHENSIVE)
TAG = "tag."
DEFAULT_WHAT = "ladder"
FIGURES, TEXTS = Path("figures"), Path("report")  # where no folder is given
PAGE, MARKDOWN, TABLES = "report.html", "report.md", "tables.tex"


def analyse_command(overrides: list[str]) -> None:
    """`analyze what=ANALYSIS experiment=NAME bench=NAME tag.NAME=VALUE since=DATE until=DATE
    out=FOLDER`, each optional.

    Raises:
        ConfigError: another key, an unknown analysis, or an experiment that does not exist.
    """
    given = {key: value for o in overrides for key, _, value in [o.partition("=")] if value}
    tags = {key.removeprefix(TAG): v for key, v in given.items() if key.startswith(TAG)}
    _check(given, [text for text in overrides if "=" not in text])
    runtime = [f"{key}={value}" for key, value in given.items() if key.startswith("runtime.")]
    if "experiment" in given:
        runtime.append(f"runtime.experiment={given['experiment']}")
    asked = Asked(given.get("bench"), tags, given.get("since"), given.get("until"))
    shell = Shell.open(compose(runtime), "analyze", overrides)
    try:
        analyse(
            shell, bench=asked.bench, folder=given.get("out"), asked=asked,
            what=given.get("what", DEFAULT_WHAT),
        )  # fmt: skip
    except BaseException:
        shell.end_launch("FAILED")
        raise
    shell.end_launch("FINISHED")


def _check(given: dict[str, str], loose: list[str]) -> None:
    allowed = ", ".join((*KEYS, "tag.NAME"))
    mistakes = [
        f"{word}: no key=value" + (f"; did you mean what={word}?" if word in WHAT else "")
        for word in loose
    ]
    mistakes += [
        f"{key}: no option of analyze{nearest(key, list(KEYS))} (options: {allowed})"
        for key in given
        if key not in KEYS and not key.startswith(("runtime.", TAG))
    ]
    what = given.get("what", DEFAULT_WHAT)
    if what not in WHAT:
        mistakes.append(f"what={what}: unknown{nearest(what, list(WHAT), show_all=True)}")
    if mistakes:
        raise ConfigError(mistakes)


def analyse(
    shell: Shell,
    *,
    bench: str | None,
    folder: str | None = None,
    asked: Asked | None = None,
    what: str = DEFAULT_WHAT,
) -> None:
    """Print the report of the present experiment, save its files, log all as a run."""
    destination, asked = shell.destination, asked or Asked(bench)
    figures, target = (Path(folder), Path(folder)) if folder else (FIGURES, TEXTS)
    try:
        _check_bench(destination, bench)
        name = destination.experiment_name()
        reading = Reading(destination.uri, name, asked)
        # The plain ladder has tables of its own in the terminal.
        plain = report.report(reading) if what == DEFAULT_WHAT else None
        found = findings(reading, what)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    text = plain.text if plain else page.as_terminal(found)
    out.print(text, markup=False, highlight=False)
    texts = {PAGE: page.as_page(found), MARKDOWN: page.as_markdown_report(found)}
    texts |= {TABLES: page.as_latex(found), "report.txt": text}
    if plain:
        texts["table.csv"] = plain.table.to_csv(index=False)
    here = os.path.relpath(figures, target)
    _write(target, texts | {MARKDOWN: page.as_markdown_report(found, here)})
    pictures = _save(figures, found)
    if pictures:
        say(f"figures: {', '.join(str(path) for path in pictures if path.suffix == '.png')}")
    _log(shell, found, asked, texts, pictures)
    say(f"report:  {(target / PAGE).resolve().as_uri()}")


def _write(target: Path, texts: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")


def _save(target: Path, found: Findings) -> list[Path]:
    """The files of all figures."""
    target.mkdir(parents=True, exist_ok=True)
    return [
        path
        for study in found.studies
        for drawing in study.drawings
        for path in style.save(drawing.figure, target / drawing.name)
    ]


def _check_bench(destination: Destination, bench: str | None) -> None:
    """A bench that nobody knows is a mistake; one that has no runs yet is not."""
    if bench is None or bench in options_of("bench"):
        return
    unknown = f"bench={bench}: unknown"
    try:
        runs = load_runs(destination.uri, destination.experiment_name())
    except ValueError as error:
        hint = nearest(bench, options_of("bench"), show_all=True)
        raise ConfigError([unknown + hint, str(error)]) from error
    here = set(column(runs, f"tags.{names.BENCH}").dropna()) | set(options_of("bench"))
    if bench not in here:
        raise ConfigError([unknown + nearest(bench, sorted(here), show_all=True)])


def _log(
    shell: Shell, found: Findings, asked: Asked, texts: dict[str, str], pictures: list[Path]
) -> None:
    """The report as an `analyze` run, its summary as the run's description."""
    destination = shell.destination
    client = destination.client()
    tags = {
        names.STAGE: "analyze",
        names.PARENT: destination.parent_id(),
        names.BENCH: asked.bench or "all",
        names.NOTE: page.as_note(found, " ".join(shell.overrides)),
    }
    kind = "" if found.what == DEFAULT_WHAT else f"-{found.what}"
    name = f"analyze{kind}-{asked.bench or 'all'}"
    run = client.create_run(destination.experiment_id(), tags=tags, run_name=name)
    run_id = run.info.run_id
    for file, text in texts.items():
        client.log_text(run_id, text, file)
    for path in pictures:
        client.log_artifact(run_id, os.fspath(path))
    client.set_terminated(run_id, "FINISHED")
