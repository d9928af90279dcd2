"""The analyze verb: print the report of a store, save its files and figures, log it as a run.

And the export verb: what a report reads, as one small file that can be analysed like a store.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from analysis import tags
from analysis.render.csv_tables import csv_tables
from analysis.render.html import as_html
from analysis.render.latex import SPREADS, as_latex
from analysis.render.markdown import as_markdown, as_note
from analysis.render.text import as_terminal
from analysis.report_model import Report
from analysis.runs import column, export, exported_experiment, load_runs
from analysis.sections.registry import COMPREHENSIVE, WHAT, report_of
from analysis.selection.experiment import ExperimentReader
from analysis.selection.filters import RunFilter
from analysis.stores.address import hidden
from analysis.stores.archive import SUFFIX
from analysis.suggest import nearest
from analysis.words import counted, joined, printable
from pipeline.cli.arguments import options
from pipeline.cli.console import out, say
from pipeline.cli.environment import site_options
from pipeline.config.errors import ConfigError
from pipeline.config.groups import options_of
from pipeline.outcome import FINISHED
from pipeline.storage.atomic import write_atomic
from pipeline.tracking.launch_run import check, launch_run
from pipeline.tracking.plain_runs import REPORT_STAGE
from pipeline.tracking.target import TrackingTarget
from trainers import metrics

FILTERS = ("bench", "experiment", "since", "until")
KEYS = ("what", *FILTERS, "primary", "margin", "spread", "out", "store")
EXPORT_KEYS = (*FILTERS, "out", "runtime.store")
TAG = "tag."
DEFAULT_WHAT = "ladder"
_STATE = f"metrics.{metrics.STATE}"
REPORTS = Path("report")  # where no folder is given
PICTURES = (".png", ".pdf")
PAGE, MARKDOWN, TABLES, TABLE = "report.html", "report.md", "tables.tex", "table.csv"


def analyse_command(overrides: list[str]) -> None:
    """`analyze what=ANALYSIS experiment=NAME bench=NAME tag.NAME=VALUE since=DATE until=DATE
    primary=RUNG margin=POINTS spread=sd out=FOLDER store=FILE`, each optional. An exported
    `store` is read and nothing is tracked.

    Raises:
        ConfigError: another key, an unknown analysis, or an experiment that does not exist.
    """
    given, run_filter = _given(overrides)
    _check("analyze", given, KEYS, [text for text in overrides if "=" not in text])
    what, folder = given.get("what", DEFAULT_WHAT), given.get("out", ".")
    spread = given.get("spread", SPREADS[0])
    _make(Path(folder))
    if "store" in given:
        try:
            name = given.get("experiment") or exported_experiment(given["store"])
        except ValueError as error:
            raise ConfigError.of(error) from error
        _show(_report(given["store"], name, run_filter, what), given.get("out"), spread)
        return
    target = _target(given)
    check(target)
    with launch_run(target):
        analyse(target, overrides, run_filter, folder=given.get("out"), what=what, spread=spread)


def export_command(overrides: list[str]) -> None:
    """`export out=FILE.db.xz experiment=NAME bench=NAME tag.NAME=VALUE since=DATE until=DATE`:
    params, tags, values, the histories that a report reads and the hashes of the weights after each
    epoch, of teachers and students.

    Raises:
        ConfigError: another key, no file, or an experiment that does not exist.
    """
    given, run_filter = _given(overrides)
    _check("export", given, EXPORT_KEYS, [text for text in overrides if "=" not in text])
    file = Path(given.get("out", ""))
    if not file.name.endswith(SUFFIX):
        raise ConfigError([f"out={given.get('out', '')}: export writes a file NAME{SUFFIX}"])
    _make(file.parent)
    root = Path(given.get("runtime.store", "store")).resolve()
    target = TrackingTarget.from_environment("export", given.get("experiment"), root)
    try:
        _check_bench(target.uri, target.experiment_name(), run_filter.bench)
        reading = ExperimentReader(target.uri, target.experiment_name(), run_filter)
        report_of(reading)  # reads the histories that a report needs
        trained = [*reading.trained(), *reading.of_studies()]
        hashes = [str(name) for name in reading.runs if str(name).startswith(_STATE)]
        metrics = [*reading.metrics(), *(name.removeprefix("metrics.") for name in hashes)]
        data = export(reading.uri, reading.experiment, trained, metrics)
    except ValueError as error:
        raise ConfigError.of(error) from error
    write_atomic(file, data)
    what = f"{counted(len(trained), 'run')} of experiment {reading.experiment}"
    say(f"exported: {what}, {len(data) / 1e6:.2f} MB: {file}")
    filters = [f"experiment={reading.experiment}", f"what={COMPREHENSIVE}"]
    look = joined(["python", "-m", "pipeline", "analyze", f"store={file}", *filters])
    say(f"look:     {look}")


def _make(folder: Path) -> None:
    """Make the folder of the results, before they are computed."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError([f"out={folder}: is a file; give a folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError([f"out={folder}: no folder can be made there ({reason})"]) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError([f"out={folder}: nothing can be written there"])


def _given(overrides: list[str]) -> tuple[dict[str, str], RunFilter]:
    """The options by name, and the runs that they select."""
    given = options(overrides)
    tags = {key.removeprefix(TAG): v for key, v in given.items() if key.startswith(TAG)}
    dates = given.get("since"), given.get("until")
    margin = _margin(given["margin"]) if "margin" in given else None
    return given, RunFilter(given.get("bench"), tags, *dates, given.get("primary"), margin)


def _margin(text: str) -> float:
    """The margin of equivalence as a fraction, from points."""
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0 < points < 100:
        raise ConfigError([f"margin={text}: not a number of points between 0 and 100, as in 0.5"])
    return points / 100


def _check(verb: str, given: dict[str, str], keys: tuple[str, ...], loose: list[str]) -> None:
    allowed = ", ".join((*keys, "tag.NAME"))
    errors = [
        f"{word}: no key=value" + (f"; did you mean what={word}?" if word in WHAT else "")
        for word in loose
    ]
    errors += [
        f"{key}: no option of {verb}{nearest(key, list(keys))} (options: {allowed})"
        for key in given
        if key not in keys and not key.startswith(("runtime.", TAG))
    ]
    what = given.get("what", DEFAULT_WHAT)
    if what not in WHAT:
        errors.append(f"what={what}: unknown{nearest(what, list(WHAT), show_all=True)}")
    spread = given.get("spread", SPREADS[0])
    if spread not in SPREADS:
        errors.append(f"spread={spread}: unknown{nearest(spread, list(SPREADS), show_all=True)}")
    if errors:
        raise ConfigError(errors)


def _target(given: dict[str, str]) -> TrackingTarget:
    """The tracking store and experiment. Composing takes torch, which a report does not need."""
    site = site_options(os.environ)
    experiment = given.get("experiment", site.get("experiment"))
    store = str(site.get("store", "store"))
    runtime = [f"{key}={value}" for key, value in given.items() if key.startswith("runtime.")]
    if runtime:
        from pipeline.config import compose

        chosen = compose(runtime).runtime
        experiment, store = experiment or chosen.experiment, chosen.store
    return TrackingTarget.from_environment("analyze", experiment, Path(store).resolve())


def analyse(
    target: TrackingTarget,
    overrides: list[str],
    run_filter: RunFilter,
    *,
    folder: str | None = None,
    what: str = DEFAULT_WHAT,
    spread: str = SPREADS[0],
) -> None:
    """Print the report of an experiment, save its files, log it as a run of the launch."""
    if target.uri.startswith(("http://", "https://")):
        say("reading: through the server (faster on its host, from its database)")
    report = _report(target.uri, target.experiment_name(), run_filter, what)
    _log(target, overrides, report, run_filter, *_show(report, folder, spread))


def _report(uri: str, experiment: str, run_filter: RunFilter, what: str) -> Report:
    """The report of an experiment.

    Raises:
        ConfigError: an unknown bench, or whatever the experiment cannot give.
    """
    try:
        _check_bench(uri, experiment, run_filter.bench)
        return report_of(ExperimentReader(uri, experiment, run_filter), what)
    except ValueError as error:
        raise ConfigError.of(error) from error


def _show(report: Report, folder: str | None, spread: str) -> tuple[dict[str, str], list[Path]]:
    """Print the report and save its files: texts by name, and pictures."""
    out_folder = Path(folder) if folder else _emptied(_own_folder(report))
    text = hidden(as_terminal(report))
    out.print(text, markup=False, highlight=False)
    texts = {
        PAGE: as_html(report),
        MARKDOWN: as_markdown(report),
        TABLES: as_latex(report, spread),
        "report.txt": text,
        **csv_tables(report),
    }
    frames = [section.frame for section in report.sections if section.frame is not None]
    if frames:
        texts[TABLE] = printable(pd.concat(frames).to_csv(index=False))
    texts = {name: hidden(one) for name, one in texts.items()}
    _write(out_folder, texts)
    pictures = _save(out_folder, report)
    if pictures:
        say(f"figures: {len(pictures) // len(PICTURES)} in {out_folder}, as PNG and PDF")
    say(f"report:  {(out_folder / PAGE).resolve().as_uri()}")
    return texts, pictures


def _own_folder(report: Report) -> Path:
    """`report/asib-ladder/beta`, `report/asib/ladder-bench-digits`: each experiment, analysis and
    filter has a folder of its own, so that no report takes the place of another."""
    what = " ".join([report.what, report.filters]).strip()
    names = (re.sub(r"[^\w.-]+", "-", one) for one in (report.experiment, what))
    return REPORTS.joinpath(*(name if name.strip(".") else "-" for name in names))


def _emptied(out_folder: Path) -> Path:
    """The folder, without figures and tables of an earlier report."""
    for path in out_folder.glob("*"):
        if path.suffix in (*PICTURES, Path(TABLE).suffix):
            path.unlink()
    return out_folder


def _write(out_folder: Path, texts: dict[str, str]) -> None:
    out_folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out_folder / name).write_text(text, encoding="utf-8")


def _save(out_folder: Path, report: Report) -> list[Path]:
    """The files of all figures."""
    out_folder.mkdir(parents=True, exist_ok=True)
    files = []
    for figure in (one for section in report.sections for one in section.figures):
        for form in ("png", "pdf"):
            files.append(out_folder / f"{figure.file_name}.{form}")
            figure.write(files[-1], form)
    return files


def _check_bench(uri: str, experiment: str, bench: str | None) -> None:
    """An unknown bench is an error; one of conf/bench without runs is not."""
    if bench is None or bench in options_of("bench"):
        return
    unknown = f"bench={bench}: unknown"
    try:
        runs = load_runs(uri, experiment)
    except ValueError as error:
        hint = nearest(bench, options_of("bench"), show_all=True)
        raise ConfigError([unknown + hint, str(error)]) from error
    here = set(column(runs, f"tags.{tags.BENCH}").dropna()) | set(options_of("bench"))
    if bench not in here:
        raise ConfigError([unknown + nearest(bench, sorted(here), show_all=True)])


def _log(
    target: TrackingTarget,
    overrides: list[str],
    report: Report,
    run_filter: RunFilter,
    texts: dict[str, str],
    pictures: list[Path],
) -> None:
    """The report as an `analyze` run, its summary as the run's description."""
    client = target.client()
    run_tags = {
        tags.STAGE: REPORT_STAGE,
        tags.PARENT: target.parent_id(),
        tags.BENCH: run_filter.bench or "all",
        tags.NOTE: as_note(report, joined(overrides)),
    }
    kind = "" if report.what == DEFAULT_WHAT else f"-{report.what}"
    name = f"analyze{kind}-{run_filter.bench or 'all'}"
    run = target.created(run_tags, name)
    run_id = str(run.run_id)
    for file, text in texts.items():
        client.log_text(run_id, text, file)
    for path in pictures:
        client.log_artifact(run_id, os.fspath(path))
    target.ended(run, FINISHED, {})
