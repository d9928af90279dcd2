"""A report as one HTML page without other files."""

import base64
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context

from analysis.render import wording
from analysis.report_model import Report, ReportFigure, Section, Source

_TEMPLATES = Path(__file__).parent


class Picture(NamedTuple):
    """A figure as a data address."""

    caption: str
    data: str


class Part(NamedTuple):
    """What the page shows of one section."""

    anchor: str
    heading: str
    section: Section
    pictures: tuple[Picture, ...]
    sources: tuple[Source, ...]


def as_html(report: Report) -> str:
    """The report as HTML: summary, warnings, then each section with its tables and figures."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=wording.title(report),
        about=wording.about(report),
        summary=wording.summary(report),
        nothing=wording.nothing(report),
        warnings=wording.warnings(report),
        parts=[_part(report, section) for section in report.sections],
    )


def _part(report: Report, section: Section) -> Part:
    sources = [report.sources[run] for run in section.run_ids if run in report.sources]
    return Part(
        re.sub(r"[^a-z0-9]+", "-", f"{section.name}-{section.bench}".lower()),
        wording.heading(report, section),
        section,
        tuple(map(_picture, section.figures)),
        tuple(sorted(sources, key=lambda source: source.name)),
    )


def _picture(figure: ReportFigure) -> Picture:
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None}
    with rc_context({"svg.hashsalt": figure.name}):  # the same numbers give the same file
        figure.figure.savefig(buffer, format="svg", metadata=metadata)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(figure.caption, f"data:image/svg+xml;base64,{data}")
