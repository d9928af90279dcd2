"""A report as Markdown, and as the description of a run."""

import re
from collections.abc import Iterable

from analysis.render import wording
from analysis.report_model import Report, Section, TextTable
from analysis.words import printable

_NOTE_LENGTH = 4500  # of the 5,000 characters that a tag can have on every store


def as_markdown(report: Report) -> str:
    """The report as Markdown; figures are PNG files in the same folder."""
    parts = [f"# {plain(wording.title(report))}", plain(wording.about(report)), "## Summary"]
    for bench, sentences in wording.summary(report):
        parts += [f"**Bench {plain(bench)}**", _items(sentences)]
    parts += [] if report.sections else [wording.nothing(report)]
    warnings = wording.warnings(report)
    parts += ["**Warnings**", _items(warnings)] if warnings else []
    for section in report.sections:
        parts += [f"## {plain(wording.heading(report, section))}", *_body(section, report)]
    gaps = wording.missing(report)
    parts += ["## Missing runs"] * bool(gaps)
    parts += [f"{plain(gap.what)}:\n\n{_fenced(gap.command)}" for gap in gaps]
    parts += _sources(report)
    return "\n\n".join(part for part in parts if part) + "\n"


def as_table(table: TextTable) -> str:
    """A Markdown table, names to the left and numbers to the right."""
    rule = " | ".join((":--", *["--:"] * (len(table.header) - 1)))
    header, *rows = (" | ".join(map(_cell, line)) for line in (table.header, *table.rows))
    return "\n".join(f"| {line} |" for line in (header, rule, *rows))


def plain(text: str) -> str:
    """A text in one line in which the names of runs and benches, which may be of another's store,
    make no HTML, links or images."""
    return re.sub(r"<(?=[A-Za-z/!?])|(?<=\])\(", r"\\\g<0>", printable(" ".join(text.splitlines())))


def _cell(text: str) -> str:
    return plain(text).replace("|", r"\|")


def as_note(report: Report, options: str) -> str:
    """The summary as the description of a run, with the command that makes it again."""
    parts = [
        f"**Bench {plain(bench)}**\n\n{_items(sentences)}"
        for bench, sentences in wording.summary(report)
    ] or [wording.nothing(report)]
    warnings = wording.warnings(report)
    parts += ["**Warnings**\n\n" + _items(warnings)] * bool(warnings)
    again = f"Again: `{' '.join(['python -m pipeline analyze', options]).strip()}`"
    text = "\n\n".join(parts)
    return f"{text[:_NOTE_LENGTH]}\n\n{again}\n\nThe report: `report.html` under Artifacts."


def _body(section: Section, report: Report) -> list[str]:
    parts = [_items(wording.more(section))]
    for table in section.tables:
        parts += [f"{plain(table.caption)}:", as_table(table.block)]
    parts += [
        f"![{plain(d.caption)}]({d.file_name}.png)\n\n*{plain(d.caption)}*" for d in section.figures
    ]
    parts += [_items(section.notes)]
    named = sorted({report.sources[run].name for run in section.run_ids if run in report.sources})
    return [*parts, plain(f"Runs: {', '.join(named)}.")] if named else parts


def _sources(report: Report) -> list[str]:
    """Where every number comes from, once for all sections."""
    ordered = sorted(report.sources.values(), key=lambda one: (one.name, one.run_id))
    listed = [
        f"- {plain(one.name)} "
        + (f"[{plain(one.run_id)}]({one.link})" if one.link else f"`{_code(one.run_id)}`")
        for one in ordered
    ]
    return ["## Runs", "\n".join(listed)] if listed else []


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)


def _code(text: str) -> str:
    """A text within a pair of backticks."""
    return plain(text).replace("`", "'")


def _fenced(command: str) -> str:
    longest = max(map(len, re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}bash\n{printable(command)}\n{fence}"
