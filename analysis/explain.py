"""Divergence of two runs: the first field of their identity, random stream, epoch or step in which
they differ.

First as numbers, then as text.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from analysis.render.text import as_text, wrapped
from analysis.report_model import TextTable
from analysis.runs import by_step
from analysis.words import counted
from trainers import metrics

_FIELDS_SHOWN, _METRICS_SHOWN, _VALUE = 16, 8, 28
_UNUSED = "not used"
_NOT_RESULTS = ("cost/", "test/", "val/best")  # of the machine, or of the whole run

# What a field of the identity changes first, in the order in which a run uses it.
_FIRST = (
    (r"data digest|stage|version|file", "the data or the version of the numerics"),
    (r"data\..*", "the data, and with them every stream that samples from them"),
    (r"teachers\..*|teacher\..*", "the teachers (each has its own stream, `teacher`)"),
    (r"seed", "the initial weights: every stream (`student`, `method`, `fusion`) has another seed"),
    (
        r"student\..*",
        "the student's initial weights: one stream, `student`, for another network",
    ),
    (r"method\.name", "the method and the initial weights of its parameters (stream `method`)"),
    (
        r"optim\.batch|mix\..*",
        "the plan of an epoch: one stream, `student`, with other batches",
    ),
    (r"method\..*", "the method's terms; the student's streams are the same"),
    (r"optim\..*|numerics\..*", "the optimiser's steps; all streams are the same"),
    (r"budget\..*|select", "the plan of epochs; all streams are the same"),
)


class FirstDifference(NamedTuple):
    """The first epoch (from 0) at whose end two histories differ, its stage and kind of step, and
    the metrics that differ: name, A's value, B's value (NaN where one did not log it)."""

    epoch: int
    stage: int | None
    step: str | None
    metrics: tuple[tuple[str, float, float], ...]


class Divergence(NamedTuple):
    """All differences of two runs. `fields`: name, A's value, B's value of each field that differs
    in the identity. `first`: None where all values that both logged are equal. `weights`: the first
    epoch at whose end the weights differ, None if they never do; `hashed`: the number of epochs for
    which both logged them. `epochs` of each run; `compared`: the number of values; `alone`: metrics
    that only one of the runs logged."""

    keys: tuple[str, str]
    fields: tuple[tuple[str, str, str], ...]
    first: FirstDifference | None
    weights: int | None
    hashed: int
    epochs: tuple[int, int]
    compared: int
    alone: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def agree(self) -> bool:
        """Whether no logged value of the runs differs."""
        return not self.fields and self.first is None and len(set(self.epochs)) == 1


def compared_metrics(metrics: list[str]) -> list[str]:
    """The metrics that two runs of one experiment should have in common: none of time or memory."""
    return [name for name in metrics if not name.startswith(_NOT_RESULTS)]


def divergence(
    identities: tuple[Mapping[str, object], Mapping[str, object]],
    history: pd.DataFrame,
    run_ids: tuple[str, str],
    keys: tuple[str, str] = ("", ""),
) -> Divergence:
    """Differences of two runs. Identities are flat; `history` holds `compared_metrics` of both."""
    first, second = (_values(history, run_id) for run_id in run_ids)
    both = [str(name) for name in first if name in second]
    steps = first.index.union(second.index)
    # After the shorter run has ended there is nothing to compare.
    shared = steps[steps <= min(_last(first), _last(second))]
    a, b = (frame.reindex(index=shared, columns=both) for frame in (first, second))
    differs = a.ne(b) & ~(a.isna() & b.isna())
    state = [name for name in both if name.startswith(metrics.STATE)]
    known = a[state].notna().all(axis=1) & b[state].notna().all(axis=1)
    moved = differs[state].any(axis=1)
    return Divergence(
        keys,
        _fields(*identities),
        _first_difference(differs, a, b),
        _first(moved),
        int(known.sum()) if state else 0,
        (_last(first) + 1, _last(second) + 1),
        int((a.notna() & b.notna()).to_numpy().sum()),
        (_alone(first, second), _alone(second, first)),
    )


def _values(history: pd.DataFrame, run_id: str) -> pd.DataFrame:
    """One row for each step, one column for each metric that this run logged."""
    own = history[history["run_id"].eq(run_id)]
    wide = by_step(own).droplevel("run_id") if len(own) else pd.DataFrame(index=pd.Index([], int))
    wide.columns = wide.columns.astype(str)
    return wide.dropna(axis="columns", how="all")


def _last(values: pd.DataFrame) -> int:
    return int(values.index.max()) if len(values) else -1


def _first(holds: pd.Series) -> int | None:
    at = holds.index[holds.to_numpy(dtype=bool)]
    return int(at[0]) if len(at) else None


def _alone(own: pd.DataFrame, other: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(name) for name in own if name not in other)


def _fields(a: Mapping[str, object], b: Mapping[str, object]) -> tuple[tuple[str, str, str], ...]:
    """The fields that differ, in the order in which a run uses them. An identity has no field that
    its run does not use: terms that are switched off, the teachers of CE."""
    of = {name: (a.get(name, _UNUSED), b.get(name, _UNUSED)) for name in (*a, *b)}
    different = [(name, str(x), str(y)) for name, (x, y) in of.items() if x != y]
    return tuple(sorted(different, key=lambda field: (_rank(field[0]), field[0])))


def _rank(field: str) -> int:
    ranks = (k for k, (pattern, _) in enumerate(_FIRST) if re.fullmatch(pattern, field))
    return next(ranks, len(_FIRST))


def _first_difference(
    differs: pd.DataFrame, a: pd.DataFrame, b: pd.DataFrame
) -> FirstDifference | None:
    epoch = _first(differs.any(axis=1))
    if epoch is None:
        return None
    of_a, of_b = (
        dict(zip(map(str, one), one[one.index == epoch].to_numpy(float)[0].tolist(), strict=True))
        for one in (a, b)
    )
    values = [str(name) for name in differs if differs.at[epoch, name]]
    stage, step = (of_a.get(name, math.nan) for name in (metrics.STAGE_INDEX, metrics.STAGE_STEP))
    return FirstDifference(
        epoch,
        None if math.isnan(stage) else int(stage),
        None if math.isnan(step) else "AB"[int(step)],
        tuple((name, of_a[name], of_b[name]) for name in values),
    )


def as_words(found: Divergence) -> str:
    """The differences as text of at most 100 columns, the conclusion first."""
    parts = [wrapped([_conclusion(found)]), wrapped([_identity(found)])]
    if found.fields:
        shown = found.fields[:_FIELDS_SHOWN]
        rows = tuple((name, _cut(a), _cut(b)) for name, a, b in shown)
        parts.append(as_text(TextTable(("field", "A", "B"), rows)))
        more = len(found.fields) - len(shown)
        parts.append(f"… and {more} more" if more else "")
    parts.append(wrapped([_history(found), _weights(found)]))
    if found.first is not None:
        parts.append(as_text(_metrics_block(found.first)))
        more = len(found.first.metrics) - _METRICS_SHOWN
        parts.append(f"… and {more} more" if more > 0 else "")
    alone = [
        f"Only {label} logged: {', '.join(of)}."
        for label, of in zip("AB", found.alone, strict=True)
        if of
    ]
    return "\n\n".join(part for part in (*parts, wrapped(alone)) if part) + "\n"


def _conclusion(found: Divergence) -> str:
    if found.agree:
        return "A and B are equal: no logged value differs."
    if found.fields:
        what = dict(enumerate(text for _, text in _FIRST)).get(_rank(found.fields[0][0]))
        return f"A and B differ from the start, in {found.fields[0][0]}: {what or 'a field'}."
    where = _where(found)
    if where is None:
        return (
            f"A and B are equal in all epochs that both have: A has "
            f"{counted(found.epochs[0], 'epoch')}, B {found.epochs[1]}."
        )
    return (
        f"A and B are the same experiment but differ {where}: compare their machines, threads and "
        "versions."
    )


def _where(found: Divergence) -> str | None:
    """The earliest difference: weights differ before losses do."""
    epochs = [e for e in (found.weights, found.first and found.first.epoch) if e is not None]
    if not epochs:
        return None
    return f"in the steps of epoch {min(epochs) + 1}"


def _identity(found: Divergence) -> str:
    same = len(set(found.keys)) == 1 and found.keys[0]
    if same:
        return f"Identity: the same key, {found.keys[0]}." + " But fields differ." * bool(
            found.fields
        )
    if not found.fields:
        return "Identity: no logged field differs."
    return (
        f"Identity: {counted(len(found.fields), 'field')} differ{'s' * (len(found.fields) == 1)}."
    )


def _history(found: Divergence) -> str:
    if not found.compared:
        return "History: the runs logged no value in common."
    if found.first is None:
        return f"History: all {found.compared} values that both logged are equal."
    one = found.first
    kind = f", stage {one.stage}" * (one.stage is not None) + f", {one.step}-Step" * bool(one.step)
    s = "s" * (len(one.metrics) == 1)
    before = f"equal up to epoch {one.epoch}" if one.epoch else "the first epoch"
    return (
        f"History: {counted(len(one.metrics), 'metric')} first differ{s} at the end of epoch "
        f"{one.epoch + 1}{kind} ({before})."
    )


def _weights(found: Divergence) -> str:
    if not found.hashed:
        return "Weights: only one run, or none, logged their hashes (state/…)."
    if found.weights is None:
        return f"Weights: bit-identical after each of {counted(found.hashed, 'epoch')}."
    since = f"equal after epoch {found.weights}, " if found.weights else ""
    return f"Weights: {since}different after epoch {found.weights + 1}."


def _metrics_block(first: FirstDifference) -> TextTable:
    rows = tuple(
        (name, _value(a), _value(b), "–" if math.isnan(b - a) else f"{b - a:+.2e}")
        for name, a, b in sorted(first.metrics, key=lambda one: one[0].startswith(metrics.STATE))[
            :_METRICS_SHOWN
        ]
    )
    return TextTable((f"after epoch {first.epoch + 1}", "A", "B", "B − A"), rows)


def _value(number: float) -> str:
    return "not logged" if math.isnan(number) else f"{number:.9g}"


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"
