"""Findings as one HTML page that needs nothing beside itself, as Markdown, and as LaTeX tables."""

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context

from analysis.render.text import TextTable, as_command, as_markdown, as_text, wrapped
from analysis.report_model import Drawing, Section, counted
from analysis.sections.registry import Findings, Source
from analysis.stores.address import redacted

NOTHING = "Nothing has finished that could be analysed. Type: python -m pipeline distill"
_SHOWN = Path(__file__).parent


class Picture(NamedTuple):
    """A figure as a data address."""

    caption: str
    data: str


class Part(NamedTuple):
    """What the page shows of one study."""

    anchor: str
    heading: str
    study: Section
    drawings: tuple[Picture, ...]
    sources: tuple[Source, ...]
    nothing: bool


def as_page(found: Findings) -> str:
    """The report as HTML: summary, warnings, then each analysis with its tables and figures."""
    environment = Environment(
        loader=FileSystemLoader(_SHOWN),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title(found),
        about=about(found),
        summary=summary(found),
        nothing=nothing(found),
        warnings=warnings(found),
        sections=[_part(found, study) for study in found.studies],
    )


def title(found: Findings) -> str:
    """`Experiment asib/ladder: comprehensive`."""
    return f"Experiment {found.experiment}: {found.what.replace('_', ' ')}"


def nothing(found: Findings) -> str:
    """What is said where no study has anything, and what to do about it."""
    if found.filters and not found.runs:
        return f"No training run is left by {found.filters}: change or leave out a filter."
    return NOTHING


def about(found: Findings) -> str:
    """Where the numbers come from, in a line."""
    filters = f", filtered by {found.filters}" if found.filters else ""
    return f"From {counted(found.runs, 'training run')} of {_address(found.store)}{filters}."


def _address(uri: str) -> str:
    address = redacted(uri)
    return address.rsplit("/", 1)[-1] if uri.startswith("sqlite") else address


def summary(found: Findings) -> list[tuple[str, list[str]]]:
    """The sentences that answer first, by bench."""
    benches = dict.fromkeys(study.bench for study in found.studies)
    result = []
    for bench in benches:
        said: list[str] = []
        for study in (one for one in found.studies if one.bench == bench):
            start = "" if study.name in ("ladder", found.what) else f"{study.title}: "
            said += [start + sentence for sentence in study.summary or study.sentences[:1]]
        missing = {gap.command for one in found.studies if one.bench == bench for gap in one.gaps}
        told = f"{counted(len(missing), 'gap')}, each with the command that fills it."
        said += [told] * bool(missing)
        result.append((f"Bench {bench}", said))
    return result


def warnings(found: Findings) -> list[str]:
    """What may make the numbers mean something else, with its bench where there are several."""
    several = len({study.bench for study in found.studies}) > 1
    told = [
        f"{study.bench}: {text}" if several else text
        for study in found.studies
        for text in study.warnings
    ]
    return list(dict.fromkeys(told))  # two analyses may see the same


def heading(found: Findings, study: Section) -> str:
    """The study's title, with its bench where there are several."""
    several = len({one.bench for one in found.studies}) > 1
    return f"{study.title} ({study.bench})" if several else study.title


def _part(found: Findings, study: Section) -> Part:
    sources = [found.sources[run] for run in study.run_ids if run in found.sources]
    empty = not (study.sentences or study.tables or study.drawings)
    return Part(
        re.sub(r"[^a-z0-9]+", "-", f"{study.name}-{study.bench}".lower()),
        heading(found, study),
        study,
        tuple(map(_picture, study.drawings)),
        tuple(sorted(sources, key=lambda source: source.name)),
        empty,
    )


def _picture(drawing: Drawing) -> Picture:
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None}
    with rc_context({"svg.hashsalt": drawing.name}):  # the same numbers give the same file
        drawing.figure.savefig(buffer, format="svg", metadata=metadata)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(drawing.caption, f"data:image/svg+xml;base64,{data}")


def as_terminal(found: Findings) -> str:
    """Summary, warnings and gaps, of a single analysis its tables too; at most 100 columns."""
    parts = [title(found), about(found)]
    for bench, sentences in summary(found):
        parts += [f"{bench}\n{'-' * len(bench)}", wrapped(sentences or [nothing(found)])]
    parts += [] if found.studies else [nothing(found)]
    parts += [wrapped(["Warnings:", *warnings(found)])] if warnings(found) else []
    if len(found.studies) == 1:
        (study,) = found.studies
        parts += [f"{table.caption}\n{as_text(table.block)}" for table in study.tables]
        parts += [wrapped(study.notes)] if study.notes else []
    missing = _missing(found)
    return "\n\n".join([*parts, missing] if missing else parts) + "\n"


def _missing(found: Findings) -> str:
    """The gaps, those with one command together."""
    by_command: dict[str, list[str]] = {}
    for gap in (gap for study in found.studies for gap in study.gaps):
        by_command.setdefault(gap.command, []).append(gap.what)
    lines = ["Missing:"] * bool(by_command)
    for command, gaps in by_command.items():
        lines.append(wrapped([f"- {'; '.join(dict.fromkeys(gaps))}:"], later="  "))
        lines.append(as_command(command))
    return "\n".join(lines)


def as_markdown_report(found: Findings) -> str:
    """The report as Markdown; figures are PNG files beside it."""
    parts = [f"# {title(found)}", about(found), "## Summary"]
    for bench, sentences in summary(found):
        parts += [f"**{bench}**", _items(sentences)]
    parts += [] if found.studies else [nothing(found)]
    parts += ["**Warnings**", _items(warnings(found))] if warnings(found) else []
    for study in found.studies:
        parts += [f"## {heading(found, study)}", *_body(study, found)]
    parts += _sources(found)
    return "\n\n".join(part for part in parts if part) + "\n"


def _body(study: Section, found: Findings) -> list[str]:
    parts = [_items(study.sentences)]
    for table in study.tables:
        parts += [f"{table.caption}:", as_markdown(table.block)]
    parts += [f"![{d.caption}]({d.name}.png)\n\n*{d.caption}*" for d in study.drawings]
    parts += [f"{gap.what}:\n\n```bash\n{gap.command}\n```" for gap in study.gaps]
    parts += [_items(study.notes)]
    named = sorted({found.sources[run].name for run in study.run_ids if run in found.sources})
    return [*parts, f"Runs: {', '.join(named)}."] if named else parts


def _sources(found: Findings) -> list[str]:
    """Where every number comes from, once for all studies."""
    ordered = sorted(found.sources.values(), key=lambda one: (one.name, one.run_id))
    listed = [
        f"{one.name} " + (f"[{one.run_id}]({one.link})" if one.link else f"`{one.run_id}`")
        for one in ordered
    ]
    return ["## Runs", _items(listed)] if listed else []


_NOTE_LENGTH = 4500  # of the 5,000 characters that a tag may have on every store


def as_note(found: Findings, typed: str) -> str:
    """The summary as the description of a run, with how to make it again."""
    parts = [f"**{bench}**\n\n{_items(sentences)}" for bench, sentences in summary(found)] or [
        nothing(found)
    ]
    parts += ["**Warnings**\n\n" + _items(warnings(found))] * bool(warnings(found))
    again = f"Again: `{' '.join(['python -m pipeline analyze', typed]).strip()}`"
    text = "\n\n".join(parts)
    return f"{text[:_NOTE_LENGTH]}\n\n{again}\n\nThe report: `report.html` under Artifacts."


def _items(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "β": r"$\beta$",
    "–": "--",
    "τ": r"$\tau$",
    "≥": r"$\ge$",
    "<": "$<$",
    ">": "$>$",
    "ⁿ": "$^n$",
    "…": r"\dots{}",
    "ε": r"$\varepsilon$",
}


def latex_text(text: str) -> str:
    """Text with everything that LaTeX would take for a command written out."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(found: Findings) -> str:
    """Every table with the rules of booktabs, ready to paste (`\\usepackage{array,booktabs}`)."""
    tables = [
        _latex_table(table.block, f"{heading(found, study)}. {table.caption}.", label)
        for study in found.studies
        for number, table in enumerate(study.tables, 1)
        for label in [f"tab:{study.name}-{study.bench}-{number}"]
    ]
    return "\n".join(["% needs \\usepackage{array,booktabs}", *tables])


def _latex_table(block: TextTable, caption: str, label: str) -> str:
    lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (block.header, *block.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{latex_text(caption)}}}",
            rf"  \label{{{label}}}",
            rf"  \begin{{tabular}}{{{latex_columns(block)}}}",
            r"    \toprule",
            f"    {lines[0]}",
            r"    \midrule",
            *(f"    {line}" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_ROOM, _WORDS = 80, 30  # characters in a line of print; in a cell from which on it is wrapped


def latex_columns(block: TextTable) -> str:
    """The columns of a table: a name, then numbers; those with long words are paragraphs, which
    share the room that the others leave."""
    widths = [max(map(len, cells)) for cells in zip(block.header, *block.rows, strict=True)]
    words = {index: min(width, _ROOM) for index, width in enumerate(widths) if width > _WORDS}
    room = 0.95 - sum(width + 2 for width in widths if width <= _WORDS) / _ROOM
    letters = ["l" if index == 0 else "r" for index in range(len(widths))]
    for index, width in words.items():
        share = max(room, 0.3) * width / sum(words.values())
        letters[index] = rf">{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}"
    return "".join(letters)
