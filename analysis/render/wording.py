"""What all forms of a report say in the same words: title, summary, warnings, headings."""

from analysis.missing import merged
from analysis.report_model import MissingRun, Report, Section
from analysis.stores.address import redacted
from analysis.words import counted

NOTHING = "Nothing has finished that could be analysed. Run: python -m pipeline distill"


def title(report: Report) -> str:
    """`Experiment asib/ladder: comprehensive`."""
    return f"Experiment {report.experiment}: {report.what.replace('_', ' ')}"


def nothing(report: Report) -> str:
    """What a report without results says, and what to do about it."""
    if report.filters and not report.runs:
        return f"No training run matches {report.filters}: change or leave out a filter."
    return NOTHING


def about(report: Report) -> str:
    """Where the numbers come from, in a line."""
    filters = f", filtered by {report.filters}" if report.filters else ""
    return f"From {counted(report.runs, 'training run')} of {_address(report.store)}{filters}."


def _address(uri: str) -> str:
    address = redacted(uri)
    return address.rsplit("/", 1)[-1] if uri.startswith("sqlite") else address


def summary(report: Report) -> list[tuple[str, list[str]]]:
    """The sentences that answer first, by bench."""
    result = []
    for bench in report.benches:
        sentences: list[str] = []
        for section in report.of_bench(bench):
            texts = section.summary or section.sentences[:1]
            plain = texts and section.name in ("ladder", report.what)
            start = "" if plain else f"{section.title}: "
            sentences += [start + text for text in texts or _parts(section)]
        commands = len(merged(gap for section in report.of_bench(bench) for gap in section.gaps))
        make = f"{counted(commands, 'command')} {'makes' if commands == 1 else 'make'}"
        sentences += [f"Runs are missing: {make} them."] * bool(commands)
        result.append((bench, sentences))
    return result


def more(section: Section) -> list[str]:
    """What a section says that the summary does not."""
    said = section.summary or section.sentences[:1]
    return [text for text in section.sentences if not any(text in one for one in said)]


def missing(report: Report) -> tuple[MissingRun, ...]:
    """What is missing, one command a kind."""
    return merged(gap for section in report.sections for gap in section.gaps)


def _parts(section: Section) -> list[str]:
    """What a section without a sentence has: `2 tables, 1 figure.`"""
    parts = ((len(section.tables), "table"), (len(section.figures), "figure"))
    listed = ", ".join(counted(number, what) for number, what in parts if number)
    return [f"{listed}."] if listed else []


def warnings(report: Report) -> list[str]:
    """What can make the numbers mean something else, with its bench where there are several."""
    several = len(report.benches) > 1
    texts = [
        f"{section.bench}: {text}" if several else text
        for section in report.sections
        for text in section.warnings
    ]
    return list(dict.fromkeys(texts))  # two sections can give the same one


def heading(report: Report, section: Section) -> str:
    """The section's title, with its bench where there are several."""
    return f"{section.title} ({section.bench})" if len(report.benches) > 1 else section.title
