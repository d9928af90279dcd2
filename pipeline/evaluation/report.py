"""The result of an evaluation, and its forms: text for a terminal, files, a figure."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis.cells import MISSING, percent
from analysis.figures.confusion import draw_confusion
from analysis.render.text import as_text, wrapped
from analysis.report_model import TextTable
from trainers.measures import SPEED_BATCH, ClassRow

_SHOWN_CLASSES = 20  # more are in per_class.csv …
_WORST = 10  # … and the worst of them on the terminal

MACS_NOTE = (
    "MACs: half of what PyTorch's FlopCounterMode counts for one image (matrix products, "
    "convolutions, attention)."
)
TEACHERS_NOTE = (
    "Teachers: as they were fine-tuned, before any A-Step; agreement: share of equal predictions; "
    "KL(teacher ‖ student) at temperature 1."
)


class Compared(NamedTuple):
    """A student compared with one of its teachers; None where that is not in the store."""

    number: int
    key: str
    name: str | None = None
    agreement: float | None = None
    kl: float | None = None  # nats


class Evaluation(NamedTuple):
    """Metrics by name (without `eval/`), teachers, classes, and the confusion matrix with a row
    per true class."""

    numbers: dict[str, float]
    teachers: tuple[Compared, ...]
    classes: tuple[ClassRow, ...]
    confusion: list[list[int]]

    def flat(self) -> dict[str, float]:
        """All numbers except those of classes, without missing ones."""
        found = dict(self.numbers)
        for one in self.teachers:
            for what, value in (("agreement", one.agreement), ("kl", one.kl)):
                if value is not None:
                    found[f"teacher{one.number}/{what}"] = value
        return found


class Facts(NamedTuple):
    """The network and the data of an evaluation."""

    name: str
    key: str
    model: str
    data: str
    data_digest: str
    own_data: bool  # whether these are the pixels of the run itself
    split: str
    device: str
    test_reads: int | None  # None where test was not read
    class_names: tuple[str, ...]


class Artifacts(NamedTuple):
    """Files by name, and the confusion matrix."""

    texts: dict[str, str]
    figure: Figure


def artifacts(found: Evaluation, facts: Facts) -> Artifacts:
    """The result as JSON and CSV (fractions, nats; empty or null where a value is missing)."""
    classes = [
        {"class": name, **row._asdict()}
        for name, row in zip(facts.class_names, found.classes, strict=True)
    ]
    body = {
        **facts._asdict(),
        "numbers": found.numbers,
        "teachers": [one._asdict() for one in found.teachers],
        "classes": classes,
        "confusion": found.confusion,
    }
    matrix = [
        [name, *counts] for name, counts in zip(facts.class_names, found.confusion, strict=True)
    ]
    texts = {
        "evaluation.json": json.dumps(body, indent=1),
        "per_class.csv": _csv([list(classes[0]), *(list(row.values()) for row in classes)]),
        "confusion.csv": _csv([["true class", *facts.class_names], *matrix]),
        "report.txt": as_report(found, facts),
    }
    title = f"{facts.name} on {facts.data}, {facts.split}"
    return Artifacts(texts, draw_confusion(found.confusion, facts.class_names, title))


def _csv(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_report(found: Evaluation, facts: Facts) -> str:
    """Tables and notes of at most 100 columns."""
    head = f"{facts.name} ({facts.model}, key {facts.key}) on {facts.data}, split {facts.split}"
    parts = [wrapped([head]), as_text(_numbers(found, facts))]
    if found.teachers:
        parts.append(as_text(_teachers(found.teachers)))
    parts += [as_text(_classes(found, facts)), wrapped(_notes(found, facts))]
    return "\n\n".join(parts)


def _numbers(found: Evaluation, facts: Facts) -> TextTable:
    n = found.numbers
    rows = [
        ("images", f"{n['images']:,.0f}"),
        ("top-1, %", percent(n["top1"])),
        *([("top-5, %", percent(n["top5"]))] if "top5" in n else []),
        ("negative log-likelihood, nats", f"{n['nll']:.4f}"),
        ("calibration error (15 bins), %", percent(n["ece"])),
        ("parameters", f"{n['parameters']:,.0f}"),
        ("MACs of one image", f"{n['macs']:,.0f}"),
        (f"images/s (batch {SPEED_BATCH}, {facts.device})", f"{n['images_per_second']:,.0f}"),
    ]
    if facts.test_reads is not None:
        rows.append(("readings of the test split, this one included", str(facts.test_reads)))
    return TextTable(("measure", "value"), tuple(rows))


def _teachers(compared: tuple[Compared, ...]) -> TextTable:
    rows = [
        (
            f"{one.number} {one.name or one.key}",
            percent(math.nan if one.agreement is None else one.agreement),
            MISSING if one.kl is None else f"{one.kl:.4f}",
        )
        for one in compared
    ]
    return TextTable(("teacher", "agreement, %", "KL, nats"), tuple(rows))


def _classes(found: Evaluation, facts: Facts) -> TextTable:
    """All classes, or the worst of many."""
    named = list(zip(facts.class_names, found.classes, strict=True))
    if len(named) > _SHOWN_CLASSES:
        seen = [pair for pair in named if pair[1].top1 is not None]
        named = sorted(seen, key=lambda pair: pair[1].top1 or 0.0)[:_WORST]
    rows = [
        (
            name,
            str(row.images),
            *(percent(math.nan if v is None else v) for v in (row.top1, row.confidence)),
        )
        for name, row in named
    ]
    return TextTable(("class", "images", "top-1, %", "mean confidence, %"), tuple(rows))


def _notes(found: Evaluation, facts: Facts) -> list[str]:
    notes = [MACS_NOTE]
    if len(found.classes) > _SHOWN_CLASSES:
        notes.append(f"The {_WORST} worst of {len(found.classes)} classes; all: per_class.csv.")
    if found.teachers:
        notes.append(TEACHERS_NOTE)
    notes += [
        f"Teacher {one.number} (key {one.key}) is not in the store: not compared."
        for one in found.teachers
        if one.name is None
    ]
    if not facts.own_data:
        notes.append("These are not the images that the run was trained on: another data set.")
    return notes
