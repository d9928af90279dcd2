"""The reference page of the options, generated from the config dataclasses and conf/.

    python -m pipeline.config.reference

writes docs/configuration.md and the tables of docs/coming-from-asib.md. A test fails where a page
differs from what this would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pipeline.config import Config
from pipeline.config.fields import range_name, type_name
from pipeline.config.groups import CONF, GROUPS, described
from pipeline.config.old_names import OLD_KEYS
from trainers.distillation.config import DistillConfig
from trainers.finetune import TeacherConfig
from trainers.methods import METHODS
from trainers.options import OptionInfo, When

ROOT = CONF.parent
COMMAND = "python -m pipeline.config.reference"
MADE = f"<!-- Made by `{COMMAND}`. Do not edit: change the code and run that again. -->\n"


def pages() -> dict[Path, str]:
    """The text of every reference page by its file."""
    docs = ROOT / "docs"
    migration = docs / "coming-from-asib.md"
    return {
        docs / "configuration.md": configuration_page(),
        migration: migration_page(migration.read_text(encoding="utf-8")),
    }


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


# Configuration ------------------------------------------------------------------------------

CONFIGURATION_HEAD = """\
# Configuration

Every option is a `key=value` on the command line: `python -m pipeline distill cfg=L2 seed=1`.
A choice of a group (`bench=digits`, `budget=short`) sets many values at once; the options below
are set one by one and win over groups. An unknown name, a wrong type or a value out of range is
one message with all errors and the nearest valid names; nothing runs then.

In the tables:

- **Default** is the value where no group of `conf/` sets another. What a command would use is
  the parameters of its run in the tracking store, and in its artifact `config.yaml`.
- **Run key** tells whether the option is part of a run's identity. *yes*: another value is another
  experiment. *no*: it cannot change a result, or the key holds what it leads to instead
  (the digest of the data, of a file; the options that a bench or a rung sets). *where …*: only in
  such configurations; elsewhere it changes nothing, and the key stays the same.
- A length in epochs that is below 1 is a fraction of the budget.
"""


class OptionSection(NamedTuple):
    """A table of options: its title, its dataclass, the prefix of its keys."""

    title: str
    cls: type
    prefix: str


def configuration_page() -> str:
    """docs/configuration.md: the groups of conf/, then every option by section."""
    parts = [MADE + CONFIGURATION_HEAD, "## Groups\n", *map(_group, GROUPS)]
    parts += ["## Options\n", *map(_section, sections())]
    return "\n".join(parts)


def sections() -> Iterator[OptionSection]:
    """The options of `Config` itself, then its groups in order; one section per method."""
    yield OptionSection("The run", Config, "")
    hints = get_type_hints(Config)
    for field in fields(Config):
        if field.name == "method":
            for name, method in METHODS.items():
                yield OptionSection(f"`method.` of {name}", method.config_type, "method.")
        elif field.name == "teacher":
            yield OptionSection("`teacher.0.`, `teacher.1.` …", TeacherConfig, "teacher.0.")
        elif is_dataclass(hints[field.name]):
            yield OptionSection(f"`{field.name}.`", hints[field.name], f"{field.name}.")


def _section(section: OptionSection) -> str:
    about = _plain_text(section.cls.__doc__ or "")
    table = _table(OPTION_HEAD, _rows(section.cls, section.prefix, section.cls()))
    return f"### {section.title}\n\n{about}\n\n{table}"


OPTION_HEAD = ("Key", "Type", "Default", "Allowed", "Run key", "Meaning")


def _rows(cls: type, prefix: str, defaults: Any, outer: tuple[When, ...] = ()) -> list[list[str]]:
    """One row per option of a dataclass and of those in it; `outer`: conditions of all of them.

    The groups of `Config` itself have their own sections. Options of the class come before those
    that it inherits: what ASIB's rungs use before the switches that none turns on.
    """
    rows, hints = [], get_type_hints(cls)
    own = next(found for one in cls.__mro__ if (found := vars(one).get("__annotations__")))
    for field in sorted(fields(cls), key=lambda field: field.name not in own):
        key, info = prefix + field.name, field.metadata["info"]
        default = getattr(defaults, field.name)
        when = (*outer, info.when) if info.when else outer
        if cls is Config and (is_dataclass(default) or field.name in ("method", "teacher")):
            continue
        if is_dataclass(default):
            rows += _rows(type(default), f"{key}.", default, when)
            continue
        rows.append(
            [
                f"`{key}`",
                type_name(hints[field.name]),
                f"`{_value(default)}`",
                _allowed(info),
                _in_key(key, info, when),
                info.help,
            ]
        )
    return rows


def _value(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _allowed(info: OptionInfo) -> str:
    bounded = (info.low, info.high) != (None, None)
    numbers = [range_name(info.low, info.high)] if bounded else []
    also = [f"`{info.free}<name>`"] if info.free else []
    words = [f"`{name}`" for name in info.choices()] if info.choices is not None else []
    return ", ".join([*numbers, *words, *also])


IDENTITY = {field.name for field in fields(DistillConfig)} | {"teacher"}


def _in_key(key: str, info: OptionInfo, when: tuple[When, ...]) -> str:
    if not info.identity or key.split(".")[0] not in IDENTITY:
        return "no"
    if not when:
        return "yes"
    return f"where {' and '.join(condition.text for condition in when)}"


def _group(group: str) -> str:
    rows = [[f"`{group}={name}`", text] for name, text in described(group).items()]
    if group == "teacher":
        rows = [[cell.replace("teacher=", "teacher@teacher.0="), text] for cell, text in rows]
    return f"### {group}\n\n{_table(('Choice', 'What it is'), rows)}"


# The original framework ---------------------------------------------------------------------

EXPERIMENTS, KEYS = "## Experiments by name\n", "## Keys\n"


def migration_page(text: str) -> str:
    """docs/coming-from-asib.md: its text, with the tables of experiments and keys made again."""
    experiments = [
        [f"`experiment={name}`", about] for name, about in described("experiment").items()
    ]
    rows = [[f"`{key.name}`", f"`{key.here}`" if key.here else "–", key.note] for key in OLD_KEYS]
    head = text.partition(EXPERIMENTS)[0]
    tables = _table(("Choice", "What it is"), experiments), _table(("There", "Here", "Note"), rows)
    return "\n".join([head + EXPERIMENTS, tables[0], KEYS, tables[1]])


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [_line(list(head)), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _plain_text(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
