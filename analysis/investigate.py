"""All analyses of a tracking store, or one of them, as plain values that pages are made of."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd

from analysis.evidence import Asked, Evidence
from analysis.reading import Reading
from analysis.runs import column
from analysis.studies import (
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
from analysis.study import Study
from pipeline import names

STUDIES: dict[str, Callable[[Evidence], Study]] = {
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
    studies: tuple[Study, ...]
    sources: dict[str, Source]


def investigate(
    uri: str, experiment: str, what: str = COMPREHENSIVE, asked: Asked | None = None
) -> Findings:
    """One analysis (a key of `STUDIES`) or all of them, for each bench that has runs.

    Raises ValueError for an unknown analysis, a date that cannot be read, or where there is no
    such store or experiment.
    """
    _check(what)
    return findings(Reading(uri, experiment, asked), what)


def _check(what: str) -> None:
    if what != COMPREHENSIVE and what not in STUDIES:
        raise ValueError(f"what={what}: unknown (allowed: {', '.join([*STUDIES, COMPREHENSIVE])})")


def findings(reading: Reading, what: str = COMPREHENSIVE) -> Findings:
    """`investigate` of an experiment that was read already."""
    _check(what)
    runs, asked = reading.runs, reading.asked
    wanted = list(STUDIES.values()) if what == COMPREHENSIVE else [_ALONE[what]]
    of_bench = column(runs, f"tags.{names.BENCH}")
    each = [
        Evidence(name, runs[of_bench.eq(name)], reading.history, asked.primary)
        for name in benches(runs, asked)
    ]
    found = tuple(one(evidence) for evidence in each for one in wanted)
    if asked.narrow:  # a run that was not asked for is no gap
        found = tuple(study._replace(gaps=()) for study in found)
    trained = int(column(runs, f"tags.{names.STAGE}").isin(["distill", "finetune"]).sum())
    used = {run_id for study in found for run_id in study.run_ids}
    sources = _sources(runs[runs["run_id"].isin(used)], reading)
    return Findings(reading.experiment, what, asked.words(), reading.uri, trained, found, sources)


def benches(runs: pd.DataFrame, asked: Asked) -> list[str]:
    """The benches of the training runs; the one asked for even where it has none."""
    trained = column(runs, f"tags.{names.STAGE}").isin(["distill", "finetune"])
    there = set(column(runs, f"tags.{names.BENCH}")[trained].dropna())
    return [asked.bench] if asked.bench else sorted(there)


def _sources(used: pd.DataFrame, reading: Reading) -> dict[str, Source]:
    """By run id. Only a server has pages to link to."""
    keys = column(used, f"tags.{names.RUN_KEY}").fillna("").astype(str)
    uri, number = reading.uri, reading.experiment_id
    root = uri.split("?")[0].rstrip("/") if uri.startswith(("http://", "https://")) else None
    return {
        run_id: Source(
            run_id, str(name), key,
            f"{root}/#/experiments/{quote(number)}/runs/{quote(run_id)}" if root else None,
        )
        for run_id, name, key in zip(used["run_id"], used["name"], keys, strict=True)
    }  # fmt: skip
