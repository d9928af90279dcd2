"""A report as one HTML page without other files."""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.render import wording
from analysis.report_model import Report, ReportFigure, Section, Source, TextTable

_TEMPLATES = Path(__file__).parent


class Picture(NamedTuple):
    """A figure as a data address."""

    anchor: str
    number: str
    title: str
    caption: str
    data: str


class Grid(NamedTuple):
    """A table under its heading."""

    anchor: str
    title: str
    block: TextTable


class Part(NamedTuple):
    """What the page shows of one section; `more` is what its summary does not say."""

    anchor: str
    heading: str
    section: Section
    more: list[str]
    pictures: tuple[Picture, ...]
    tables: tuple[Grid, ...]
    sources: tuple[Source, ...]


def as_html(report: Report) -> str:
    """The report as HTML: the summary, then each section: its first figure and table, the others,
    its notes. Its tables sort by a few lines of JavaScript of its own."""
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
        missing=wording.missing(report),
        parts=_parts(report),
    )


def _parts(report: Report) -> list[Part]:
    before, parts = 0, []
    for section in report.sections:
        parts.append(_part(report, section, before))
        before += len(section.figures)
    return parts


def _part(report: Report, section: Section, before: int) -> Part:
    """A section of which `before` figures of others come first."""
    sources = [report.sources[run] for run in section.run_ids if run in report.sources]
    anchor = re.sub(r"[^a-z0-9]+", "-", f"{section.name}-{section.bench}".lower())
    return Part(
        anchor,
        wording.heading(report, section),
        section,
        wording.more(section),
        tuple(
            _picture(one, section.bench, number)
            for number, one in enumerate(section.figures, before + 1)
        ),
        tuple(
            Grid(f"{anchor}-table-{number}", table.caption, table.block)
            for number, table in enumerate(section.tables, 1)
        ),
        tuple(sorted(sources, key=lambda source: source.name)),
    )


def _picture(figure: ReportFigure, bench: str, number: int) -> Picture:
    buffer = io.BytesIO()
    figure.write(buffer, "svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    address = f"data:image/svg+xml;base64,{data}"
    named = f"Figure {number}"
    title = f"{named}: {figure.name.removesuffix(bench).strip('_').replace('_', ' ')}"
    return Picture(f"figure-{number}", named, title, figure.caption, address)
