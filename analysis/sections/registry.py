"""The sections of a report by name, and the report of an experiment."""

import re
from collections.abc import Callable
from urllib.parse import quote

import pandas as pd

from analysis import tags
from analysis.report_model import Report, ReportFigure, Section, Source
from analysis.runs import column
from analysis.sections import benches as several
from analysis.sections import (
    beta,
    cccp,
    freezing,
    health,
    information_plane,
    labels,
    ladder,
    methods,
    overlap,
    room,
    study,
    teacher_adaptation,
)
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import by_labels, by_overlap, by_problem
from analysis.selection.experiment import ExperimentReader
from analysis.selection.filters import RunFilter
from analysis.stores.address import redacted

SECTIONS: dict[str, Callable[[BenchRuns], Section]] = {
    "ladder": ladder.section,
    "methods": methods.section,
    "beta": beta.section,
    "information_plane": information_plane.section,
    "cccp": cccp.section,
    "room": room.section,
    "teacher_adaptation": teacher_adaptation.section,
    "freezing": freezing.section,
    "overlap": overlap.section,
    "labels": labels.section,
    "health": health.section,
}
COMPREHENSIVE = "comprehensive"
WHAT = (*SECTIONS, "study", COMPREHENSIVE)
_ALONE = SECTIONS | {"ladder": ladder.alone, "room": room.alone, "study": study.section}  # alone
_IF_ANY = ("beta", "overlap", "labels", "room")  # in a report of everything where they found any
# How the runs of a bench are split into problems, where it is not by overlap and number of labels.
_SPLIT = {"overlap": by_labels, "labels": by_overlap, "health": lambda runs: runs}


def analyze(
    uri: str, experiment: str, what: str = COMPREHENSIVE, filters: RunFilter | None = None
) -> Report:
    """One section (of `WHAT`) or all of them, for each bench that has runs.

    Raises ValueError for an unknown section, a date that cannot be read, or where there is no
    such store or experiment.
    """
    _check(what)
    return report_of(ExperimentReader(uri, experiment, filters), what)


def _check(what: str) -> None:
    if what not in WHAT:
        raise ValueError(f"what={what}: unknown (allowed: {', '.join(WHAT)})")


def report_of(reader: ExperimentReader, what: str = COMPREHENSIVE) -> Report:
    """`analyze` of an experiment that was read already."""
    _check(what)
    runs, filters = reader.runs, reader.filters
    count = len(_labels(reader))
    found = tuple(
        section
        for bench in benches(runs, filters)
        for name in (SECTIONS if what == COMPREHENSIVE else (what,))
        for section in _of_bench(name, bench, reader, count, alone=what != COMPREHENSIVE)
        if what != COMPREHENSIVE or name not in _IF_ANY or not section.empty
    )
    found = _together(what, reader, count) + found
    if filters.narrow:  # a run that a filter leaves out is not missing
        found = tuple(section._replace(gaps=()) for section in found)
    trained = int(column(runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"]).sum())
    used = {run_id for section in found for run_id in section.run_ids}
    sources = _sources(runs[runs["run_id"].isin(used)], reader)
    return Report(reader.experiment, what, filters.words(), reader.uri, trained, found, sources)


def _labels(reader: ExperimentReader) -> set[str]:
    """The benches and overlaps of the report that have students: each makes claims of its own."""
    runs = reader.runs[column(reader.runs, f"tags.{tags.STAGE}").eq("distill")]
    of = runs[column(runs, f"tags.{tags.BENCH}").isin(benches(reader.runs, reader.filters))]
    return set(column(by_problem(of), f"tags.{tags.BENCH}").dropna())


def _together(what: str, reader: ExperimentReader, count: int) -> tuple[Section, ...]:
    """The table of all benches, where a report of the ladder has several."""
    if count < 2 or what not in ("ladder", COMPREHENSIVE):
        return ()
    named = benches(reader.runs, reader.filters)
    of = by_problem(reader.runs[column(reader.runs, f"tags.{tags.BENCH}").isin(named)])
    found = several.section(_each(of, reader, count))
    return () if found.empty else (found,)


def _each(runs: pd.DataFrame, reader: ExperimentReader, count: int) -> list[BenchRuns]:
    """The runs by bench; the level of all claims is shared by `count` of them."""
    label, filters = column(runs, f"tags.{tags.BENCH}"), reader.filters
    return [
        BenchRuns(
            name,
            runs[label.eq(name)],
            reader.history,
            filters.primary,
            filters.margin,
            max(1, count),
        )
        for name in sorted(label.dropna().unique())
    ]


def _of_bench(
    name: str, bench: str, reader: ExperimentReader, count: int, *, alone: bool
) -> list[Section]:
    """A section of one bench; where teachers were specialised, or labels are few, one for each
    overlap and number of labels, as each is another problem with controls of its own."""
    of_bench = reader.runs[column(reader.runs, f"tags.{tags.BENCH}").eq(bench)]
    runs = _SPLIT.get(name, by_problem)(of_bench)
    make = _ALONE[name] if alone else SECTIONS[name]
    each = _each(runs, reader, count) or [BenchRuns(bench, runs, reader.history)]
    found = [make(one) for one in each]
    return [section._replace(figures=tuple(map(_as_file, section.figures))) for section in found]


def _as_file(figure: ReportFigure) -> ReportFigure:
    """A figure whose name is the name of a file, without blanks."""
    return figure._replace(name=re.sub(r"[^\w.=-]+", "_", figure.name))


def benches(runs: pd.DataFrame, filters: RunFilter) -> list[str]:
    """The benches of the training runs; the requested one even where it has none."""
    trained = column(runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    there = set(column(runs, f"tags.{tags.BENCH}")[trained].dropna())
    return [filters.bench] if filters.bench else sorted(there)


def _sources(used: pd.DataFrame, reader: ExperimentReader) -> dict[str, Source]:
    """By run id. Only a server has pages to link to."""
    keys = column(used, f"tags.{tags.RUN_KEY}").fillna("").astype(str)
    uri, number = reader.uri, reader.experiment_id
    root = (
        redacted(uri).split("?")[0].rstrip("/") if uri.startswith(("http://", "https://")) else None
    )
    return {
        run_id: Source(
            run_id,
            str(name),
            key,
            f"{root}/#/experiments/{quote(number)}/runs/{quote(run_id)}" if root else None,
        )
        for run_id, name, key in zip(used["run_id"], used["name"], keys, strict=True)
    }
