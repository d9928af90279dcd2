"""All analyses of a tracking store, or one of them, as plain values that pages are made of."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd

from analysis import tags
from analysis.report_model import Section
from analysis.runs import column
from analysis.sections import (
    beta,
    cccp,
    freezing,
    health,
    information_plane,
    ladder,
    methods,
    overlap,
    teacher_adaptation,
)
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.experiment import ExperimentReader
from analysis.selection.filters import RunFilter

STUDIES: dict[str, Callable[[BenchRuns], Section]] = {
    "ladder": ladder.study,
    "methods": methods.study,
    "beta": beta.study,
    "information_plane": information_plane.study,
    "cccp": cccp.study,
    "teacher_adaptation": teacher_adaptation.study,
    "freezing": freezing.study,
    "overlap": overlap.study,
    "health": health.study,
}
COMPREHENSIVE = "comprehensive"
_ALONE = STUDIES | {"ladder": ladder.alone}  # as each is where it is the only one


class Source(NamedTuple):
    """A run behind a number; `link` leads to it in the UI where the store has one."""

    run_id: str
    name: str
    key: str
    link: str | None


class Findings(NamedTuple):
    """What was asked, what was found, and which runs it comes from."""

    experiment: str
    what: str
    filters: str
    store: str
    runs: int
    studies: tuple[Section, ...]
    sources: dict[str, Source]


def investigate(
    uri: str, experiment: str, what: str = COMPREHENSIVE, asked: RunFilter | None = None
) -> Findings:
    """One analysis (a key of `STUDIES`) or all of them, for each bench that has runs.

    Raises ValueError for an unknown analysis, a date that cannot be read, or where there is no
    such store or experiment.
    """
    _check(what)
    return findings(ExperimentReader(uri, experiment, asked), what)


def _check(what: str) -> None:
    if what != COMPREHENSIVE and what not in STUDIES:
        raise ValueError(f"what={what}: unknown (allowed: {', '.join([*STUDIES, COMPREHENSIVE])})")


def findings(reading: ExperimentReader, what: str = COMPREHENSIVE) -> Findings:
    """`investigate` of an experiment that was read already."""
    _check(what)
    runs, asked = reading.runs, reading.asked
    wanted = list(STUDIES.values()) if what == COMPREHENSIVE else [_ALONE[what]]
    of_bench = column(runs, f"tags.{tags.BENCH}")
    each = [
        BenchRuns(name, runs[of_bench.eq(name)], reading.history, asked.primary)
        for name in benches(runs, asked)
    ]
    found = tuple(one(bench_runs) for bench_runs in each for one in wanted)
    if asked.narrow:  # a run that was not asked for is no gap
        found = tuple(study._replace(gaps=()) for study in found)
    trained = int(column(runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"]).sum())
    used = {run_id for study in found for run_id in study.run_ids}
    sources = _sources(runs[runs["run_id"].isin(used)], reading)
    return Findings(reading.experiment, what, asked.words(), reading.uri, trained, found, sources)


def benches(runs: pd.DataFrame, asked: RunFilter) -> list[str]:
    """The benches of the training runs; the one asked for even where it has none."""
    trained = column(runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    there = set(column(runs, f"tags.{tags.BENCH}")[trained].dropna())
    return [asked.bench] if asked.bench else sorted(there)


def _sources(used: pd.DataFrame, reading: ExperimentReader) -> dict[str, Source]:
    """By run id. Only a server has pages to link to."""
    keys = column(used, f"tags.{tags.RUN_KEY}").fillna("").astype(str)
    uri, number = reading.uri, reading.experiment_id
    root = uri.split("?")[0].rstrip("/") if uri.startswith(("http://", "https://")) else None
    return {
        run_id: Source(
            run_id,
            str(name),
            key,
            f"{root}/#/experiments/{quote(number)}/runs/{quote(run_id)}" if root else None,
        )
        for run_id, name, key in zip(used["run_id"], used["name"], keys, strict=True)
    }
