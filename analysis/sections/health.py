"""Warnings: those that runs gave while they trained, and those that the store itself shows."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import tags
from analysis.ladder_numbers import rung_order
from analysis.report_model import Section, Table, TextTable
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.words import counted
from trainers import metrics
from trainers.health import WARNINGS

_PREFIX = f"metrics.{tags.HEALTH}/"
_LISTED = 6  # names of runs in a table
_NAMED = 3  # runs named in a sentence; of more the rungs are
_DIGITS = 6  # of a key or an id
READ_AGAIN = "the test split was read more than once"
_ENDS = ("failed", "killed")
_NOT_LOGGED = "No run logged health values."


class Warned(NamedTuple):
    """A warning and the runs that it is about."""

    warning: str
    runs: tuple[str, ...]  # names, with what tells them apart where several have one
    run_ids: tuple[str, ...]


def health_info(runs: pd.DataFrame, again: Collection[str] = ()) -> tuple[Warned, ...]:
    """Warnings by falling number of runs, whatever the status of the runs; `again`: the ids of
    those that logged a test accuracy at several steps."""
    found: dict[str, dict[str, str]] = {}
    rows = zip(runs["run_id"].astype(str), labels(runs), _warnings(runs, again), strict=True)
    for run_id, label, warnings in rows:
        for warning in warnings:
            found.setdefault(warning, {})[run_id] = label
    listed = [Warned(w, tuple(by.values()), tuple(by)) for w, by in found.items()]
    return tuple(sorted(listed, key=lambda one: (-len(one.runs), one.warning)))


def labels(runs: pd.DataFrame) -> list[str]:
    """The name of each run, with the first digits of its key where runs share a name, with those
    of its id where they share both."""
    name = runs["name"].astype(str)
    key = column(runs, f"tags.{tags.RUN_KEY}").fillna("").astype(str).str[:_DIGITS]
    by_key = (name + " (key " + key + ")").where(key.ne(""), name)
    by_id = name + " (run " + runs["run_id"].astype(str).str[:_DIGITS] + ")"
    label = name.where(~name.duplicated(keep=False), by_key)
    return label.where(~label.duplicated(keep=False), by_id).tolist()


def tested_again(runs: pd.DataFrame, history: pd.DataFrame) -> frozenset[str]:
    """The ids of the runs with test accuracies at more than one step: one is all that a finalise
    step logs. `history` holds `metrics.TEST_TOP1`."""
    tested = history[
        history["metric"].eq(metrics.TEST_TOP1) & history["run_id"].isin(runs["run_id"])
    ]
    steps = tested.groupby("run_id", observed=True)["step"].nunique()
    return frozenset(map(str, steps.index[steps > 1]))


def _warnings(runs: pd.DataFrame, again: Collection[str]) -> list[list[str]]:
    """Of each run: its tag, its last health values, and what its other values show."""
    tag = column(runs, f"tags.{tags.HEALTH}").fillna("").astype(str)
    found = [[word.strip() for word in text.split(",") if word.strip()] for text in tag]
    for name in (str(n) for n in runs if str(n).startswith(_PREFIX)):
        _add(found, runs[name].eq(1), name.removeprefix(_PREFIX))
    for words, holds in _seen(runs, again).items():
        _add(found, holds, words)
    return [list(dict.fromkeys(words)) for words in found]


def _add(found: list[list[str]], holds: pd.Series, warning: str) -> None:
    for words, does in zip(found, holds, strict=True):
        words += [warning] * bool(does)


def _seen(runs: pd.DataFrame, again: Collection[str]) -> dict[str, pd.Series]:
    """What no run should show, whatever it says of itself."""
    values = [name for name in runs if str(name).startswith("metrics.")]
    infinite = pd.Series(False, runs.index)
    for name in values:
        infinite |= np.isinf(runs[name].astype(float))
    reads = column(runs, f"metrics.{metrics.TEST_READS}").astype(float)
    return {
        READ_AGAIN: (reads > 1) | runs["run_id"].isin(again),
        "a value is infinite": infinite,
        "no mixed precision from some epoch on": column(runs, f"tags.{tags.FALLBACK}").notna(),
        "failed": runs["status"].eq("FAILED"),
        "killed": runs["status"].eq("KILLED"),
    }


def section(bench_runs: BenchRuns) -> Section:
    """The warnings of one bench."""
    stages = column(bench_runs.runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    runs = bench_runs.runs[stages]
    found = health_info(runs, _read_again(bench_runs, runs))
    notes = () if _logged(runs).any() else (_NOT_LOGGED,)
    total = counted(len(runs), "run")
    if not found:
        return Section(
            "health", bench_runs.bench, "Health", (f"No warning in {total}.",), notes=notes
        )
    return Section(
        "health",
        bench_runs.bench,
        "Health",
        sentences=(f"{counted(len(found), 'kind')} of warning in {total}.",),
        tables=(Table("Warnings and their runs", table(found)),),
        notes=notes,
        run_ids=tuple(dict.fromkeys(run for one in found for run in one.run_ids)),
        warnings=_sentences(found, runs),
    )


def with_health(ladder: Section, bench_runs: BenchRuns) -> Section:
    """A section with the warnings of its runs, for a report without a section on health. Failed
    and killed runs are among the runs that it leaves out."""
    stages = column(bench_runs.runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    runs = bench_runs.runs[stages]
    if runs.empty:
        return ladder
    found = health_info(runs, _read_again(bench_runs, runs))
    texts = _sentences(tuple(one for one in found if one.warning not in _ENDS), runs)
    if texts:
        return ladder._replace(warnings=(*ladder.warnings, *texts))
    logged = int(_logged(runs).sum())
    note = f"No warning in {counted(logged, 'run')}." if logged else _NOT_LOGGED
    return ladder._replace(notes=(*ladder.notes, note))


def given(runs: pd.DataFrame) -> tuple[str, ...]:
    """The names of the warnings that runs gave while they trained, in the order of `WARNINGS`."""
    found = {one.warning for one in health_info(runs)}
    return tuple(name for name in WARNINGS if name in found)


def _read_again(bench_runs: BenchRuns, runs: pd.DataFrame) -> frozenset[str]:
    return tested_again(runs, bench_runs.history(runs, [metrics.TEST_TOP1]))


def _logged(runs: pd.DataFrame) -> pd.Series:
    """Whether each run logged health values."""
    logged = column(runs, f"tags.{tags.HEALTH}").notna()
    for name in (n for n in runs if str(n).startswith(_PREFIX)):
        logged |= runs[name].notna()
    return logged


def _sentences(found: tuple[Warned, ...], runs: pd.DataFrame) -> tuple[str, ...]:
    """One for each warning: the runs, and what the warning means and what to try."""
    rungs = column(runs, f"tags.{tags.RUNG}").fillna("teachers").astype(str)
    rung_of = dict(zip(runs["run_id"].astype(str), rungs, strict=True))
    checked = {str(run) for run in runs.loc[_logged(runs), "run_id"]}
    return tuple(_sentence(one, rung_of, checked) for one in found)


def _sentence(one: Warned, rung_of: Mapping[str, str], checked: Collection[str]) -> str:
    if one.warning not in WARNINGS:
        return f"{one.warning}: {counted(len(one.runs), 'run')}"
    which = ", ".join(one.runs)
    if len(one.runs) > _NAMED:
        rungs = rung_order({rung_of[run] for run in one.run_ids})
        among = sum(rung_of[run] in rungs for run in checked)
        share = f"all {among}" if len(one.runs) == among else f"{len(one.runs)} of {among}"
        which = f"{', '.join(rungs)}: {share} runs"
    return f"{one.warning} ({which}): {WARNINGS[one.warning].advice}"


def table(found: tuple[Warned, ...]) -> TextTable:
    """A row a warning."""
    rows = []
    for one in found:
        more = f" and {len(one.runs) - _LISTED} more" if len(one.runs) > _LISTED else ""
        rows.append((one.warning, str(len(one.runs)), ", ".join(one.runs[:_LISTED]) + more))
    return TextTable(("warning", "runs", "which"), tuple(rows))
