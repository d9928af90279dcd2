"""A report as Markdown, and as the description of a run."""

from collections.abc import Iterable

from analysis.render import wording
from analysis.report_model import Report, Section, TextTable

_NOTE_LENGTH = 4500  # of the 5,000 characters that a tag can have on every store


def as_markdown(report: Report) -> str:
    """The report as Markdown; figures are PNG files in the same folder."""
    parts = [f"# {wording.title(report)}", wording.about(report), "## Summary"]
    for bench, sentences in wording.summary(report):
        parts += [f"**Bench {bench}**", _items(sentences)]
    parts += [] if report.sections else [wording.nothing(report)]
    warnings = wording.warnings(report)
    parts += ["**Warnings**", _items(warnings)] if warnings else []
    for section in report.sections:
        parts += [f"## {wording.heading(report, section)}", *_body(section, report)]
    parts += _sources(report)
    return "\n\n".join(part for part in parts if part) + "\n"


def as_table(table: TextTable) -> str:
    """A Markdown table, names to the left and numbers to the right."""
    rule = (":--", *["--:"] * (len(table.header) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in (table.header, rule, *table.rows))


def as_note(report: Report, options: str) -> str:
    """The summary as the description of a run, with the command that makes it again."""
    parts = [
        f"**Bench {bench}**\n\n{_items(sentences)}" for bench, sentences in wording.summary(report)
    ] or [wording.nothing(report)]
    warnings = wording.warnings(report)
    parts += ["**Warnings**\n\n" + _items(warnings)] * bool(warnings)
    again = f"Again: `{' '.join(['python -m pipeline analyze', options]).strip()}`"
    text = "\n\n".join(parts)
    return f"{text[:_NOTE_LENGTH]}\n\n{again}\n\nThe report: `report.html` under Artifacts."


def _body(section: Section, report: Report) -> list[str]:
    parts = [_items(section.sentences)]
    for table in section.tables:
        parts += [f"{table.caption}:", as_table(table.block)]
    parts += [f"![{d.caption}]({d.name}.png)\n\n*{d.caption}*" for d in section.figures]
    parts += [f"{gap.what}:\n\n```bash\n{gap.command}\n```" for gap in section.gaps]
    parts += [_items(section.notes)]
    named = sorted({report.sources[run].name for run in section.run_ids if run in report.sources})
    return [*parts, f"Runs: {', '.join(named)}."] if named else parts


def _sources(report: Report) -> list[str]:
    """Where every number comes from, once for all sections."""
    ordered = sorted(report.sources.values(), key=lambda one: (one.name, one.run_id))
    listed = [
        f"{one.name} " + (f"[{one.run_id}]({one.link})" if one.link else f"`{one.run_id}`")
        for one in ordered
    ]
    return ["## Runs", _items(listed)] if listed else []


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
