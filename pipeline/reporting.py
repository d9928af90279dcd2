"""The analyze verb: print what the store says, save the figures, log both."""

from __future__ import annotations

from pathlib import Path

from analysis import report, style
from analysis.runs import column, load_runs
from pipeline import names
from pipeline.config import ConfigError, compose, nearest, options_of
from pipeline.console import out, say
from pipeline.destination import Destination
from pipeline.shell import Shell

KEYS = ("bench", "experiment", "out")
DEFAULT_FOLDER = "figures"


def analyse_command(overrides: list[str]) -> None:
    """`analyze experiment=NAME bench=NAME out=FOLDER`, each optional.

    Raises:
        ConfigError: another key, or an experiment that does not exist.
    """
    given = dict(o.partition("=")[::2] for o in overrides)
    unknown = [key for key in given if key not in KEYS and not key.startswith("runtime.")]
    if unknown:
        raise ConfigError(
            [f"{key}: no option of analyze (options: {', '.join(KEYS)})" for key in unknown]
        )
    runtime = [f"{key}={value}" for key, value in given.items() if key.startswith("runtime.")]
    if given.get("experiment"):
        runtime.append(f"runtime.experiment={given['experiment']}")
    shell = Shell.open(compose(runtime), "analyze", overrides)
    try:
        analyse(shell, bench=given.get("bench") or None, folder=given.get("out"))
    except BaseException:
        shell.end_launch("FAILED")
        raise
    shell.end_launch("FINISHED")


def analyse(shell: Shell, *, bench: str | None, folder: str | None = None) -> None:
    """Print the report of the present experiment, save its figures, log all as a run."""
    destination = shell.destination
    try:
        _check_bench(destination, bench)
        found = report.analyze(destination.uri, destination.experiment_name(), bench)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    out.print(found.text, markup=False, highlight=False)
    target = Path(folder or DEFAULT_FOLDER)
    target.mkdir(parents=True, exist_ok=True)
    paths = [
        path for name, figure in found.figures.items() for path in style.save(figure, target / name)
    ]
    if paths:
        say(f"figures: {', '.join(str(path) for path in paths if path.suffix == '.png')}")
    _log(shell, found, bench)


def _check_bench(destination: Destination, bench: str | None) -> None:
    """A bench that nobody knows is a mistake; one that has no runs yet is not."""
    if bench is None or bench in options_of("bench"):
        return
    try:
        runs = load_runs(destination.uri, destination.experiment_name())
        seen = set(column(runs, f"tags.{names.BENCH}").dropna())
    except ValueError:  # no store or experiment yet: no bench of a user's own either
        seen = set()
    here = seen | set(options_of("bench"))
    if bench not in here:
        raise ConfigError([f"bench={bench}: unknown{nearest(bench, sorted(here), show_all=True)}"])


def _log(shell: Shell, found: report.Report, bench: str | None) -> None:
    destination = shell.destination
    client = destination.client()
    tags = {
        names.STAGE: "analyze",
        names.PARENT: destination.parent_id(),
        names.BENCH: bench or "all",
    }
    name = f"analyze-{bench or 'all'}"
    run = client.create_run(destination.experiment_id(), tags=tags, run_name=name)
    run_id = run.info.run_id
    client.log_text(run_id, found.text, "report.txt")
    client.log_text(run_id, found.markdown, "report.md")
    client.log_text(run_id, found.table.to_csv(index=False), "table.csv")
    for figure_name, figure in found.figures.items():
        client.log_figure(run_id, figure, f"{figure_name}.png")
    client.set_terminated(run_id, "FINISHED")
