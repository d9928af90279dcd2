"""Warnings: those that runs gave while they trained, and those that the store itself shows."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import tags
from analysis.render.text import TextTable
from analysis.report_model import Section, Table, counted
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from trainers import metrics

_PREFIX = f"metrics.{tags.HEALTH}/"
_LISTED = 6  # names of runs in a table
_DIGITS = 6  # of a key or an id
READ_AGAIN = "the test split was read more than once"
_DONE = ("FINISHED", "FAILED", "KILLED")


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


def study(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    stages = column(bench_runs.runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    runs = bench_runs.runs[stages]
    found = health_info(runs, tested_again(runs, bench_runs.history(runs, [metrics.TEST_TOP1])))
    told = column(runs, f"tags.{tags.HEALTH}").notna()
    for name in (n for n in runs if str(n).startswith(_PREFIX)):
        told |= runs[name].notna()
    notes = () if told.any() else ("No run logged health values of its own.",)
    if not found:
        sentence = f"No warning in {counted(len(runs), 'run')}."
        return Section("health", bench_runs.bench, "Health", (sentence,), notes=notes)
    warnings = tuple(map(_told, found))
    return Section(
        "health",
        bench_runs.bench,
        "Health",
        sentences=(f"{counted(len(found), 'kind')} of warning in {counted(len(runs), 'run')}.",),
        tables=(Table("Warnings and the runs that they are about", block(found)),),
        notes=notes,
        run_ids=tuple(dict.fromkeys(run for one in found for run in one.run_ids)),
        warnings=warnings,
    )


def read_again(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[str, ...]:
    """The warning of the runs whose test split was read more than once, where there are any;
    `history` holds `metrics.TEST_TOP1`."""
    found = health_info(runs, tested_again(runs, history))
    return tuple(_told(one) for one in found if one.warning == READ_AGAIN)


def _told(one: Warned) -> str:
    return f"{one.warning}: {counted(len(one.runs), 'run')}"


def block(found: tuple[Warned, ...]) -> TextTable:
    """A row a warning."""
    rows = []
    for one in found:
        more = f" and {len(one.runs) - _LISTED} more" if len(one.runs) > _LISTED else ""
        listed = ", ".join(one.runs[:_LISTED]) + more
        rows.append((one.warning, str(len(one.runs)), listed))
    return TextTable(("warning", "runs", "which"), tuple(rows))
