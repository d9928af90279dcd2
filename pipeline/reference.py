"""The reference pages, made from the code so that they cannot say something else.

    python -m pipeline.reference

writes docs/configuration.md from the config dataclasses and conf/, and docs/api.md from the
source of the public modules. A test fails where the pages are not those that this would write.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pipeline.config import Config
from pipeline.fields import range_name, type_name
from pipeline.groups import CONF, GROUPS, options_of
from trainers.finetune import TeacherConfig
from trainers.methods import METHODS
from trainers.options import Fact
from trainers.run import DistillConfig

ROOT = CONF.parent
COMMAND = "python -m pipeline.reference"
MADE = f"<!-- Made by `{COMMAND}`. Do not edit: change the code and run that again. -->\n"


def pages() -> dict[Path, str]:
    """The text of every reference page by its file."""
    docs = ROOT / "docs"
    return {docs / "configuration.md": configuration_page(), docs / "api.md": api_page()}


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
one message with all mistakes and the nearest valid names; nothing runs then.

In the tables:

- **Default** is the value where no group of `conf/` says otherwise. What a command would use is
  the parameters of its run in the tracking store, and `config.yaml` beside them.
- **Run key** says whether the option is part of a run's identity. *yes*: another value is another
  experiment. *no*: it cannot change a result, or what it leads to stands in the key in its place
  (the digest of the data, of a file; the options that a bench or a rung sets). *where …*: only in
  such configurations; elsewhere it changes nothing, and the key stays the same.
- A length in epochs that is below 1 is a fraction of the budget.
"""


class Section(NamedTuple):
    """A table of options: its title, its dataclass, the prefix of its keys."""

    title: str
    cls: type
    prefix: str


def configuration_page() -> str:
    """docs/configuration.md: the groups of conf/, then every option by section."""
    parts = [MADE + CONFIGURATION_HEAD, "## Groups\n", *map(_group, GROUPS)]
    parts += ["## Options\n", *map(_section, sections())]
    return "\n".join(parts)


def sections() -> Iterator[Section]:
    """What stands in `Config` itself, then its groups in order; each method has its own."""
    yield Section("The run", Config, "")
    hints = get_type_hints(Config)
    for field in fields(Config):
        if field.name == "method":
            for name, method in METHODS.items():
                yield Section(f"`method.` of {name}", method.config_type, "method.")
        elif field.name == "teacher":
            yield Section("`teacher.0.`, `teacher.1.` …", TeacherConfig, "teacher.0.")
        elif is_dataclass(hints[field.name]):
            yield Section(f"`{field.name}.`", hints[field.name], f"{field.name}.")


def _section(section: Section) -> str:
    about = _plain_text(section.cls.__doc__ or "")
    table = _table(OPTION_HEAD, _rows(section.cls, section.prefix, section.cls()))
    return f"### {section.title}\n\n{about}\n\n{table}"


Condition = Callable[[Any], bool]
OPTION_HEAD = ("Key", "Type", "Default", "Allowed", "Run key", "Meaning")


def _rows(
    cls: type, prefix: str, defaults: Any, outer: tuple[Condition, ...] = ()
) -> list[list[str]]:
    """One row an option of a dataclass and of those in it; `outer`: when the whole group counts.

    The groups of `Config` itself have sections of their own.
    """
    rows, hints = [], get_type_hints(cls)
    for field in fields(cls):
        key, fact = prefix + field.name, field.metadata["fact"]
        default = getattr(defaults, field.name)
        when = (*outer, fact.when) if fact.when else outer
        if cls is Config and (is_dataclass(default) or field.name in ("method", "teacher")):
            continue
        if is_dataclass(default):
            rows += _rows(type(default), f"{key}.", default, when)
            continue
        rows.append(
            [f"`{key}`", type_name(hints[field.name]), f"`{_value(default)}`", _allowed(fact),
             _in_key(key, fact, when), fact.help]
        )  # fmt: skip
    return rows


def _value(value: Any) -> str:
    """A value as a user types it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _allowed(fact: Fact) -> str:
    if fact.choices is not None:
        also = [f"{fact.free}<name>"] if fact.free else []
        return ", ".join(f"`{name}`" for name in [*fact.choices(), *also])
    return range_name(fact.low, fact.high) if (fact.low, fact.high) != (None, None) else ""


IDENTITY = {field.name for field in fields(DistillConfig)} | {"teacher"}


def _in_key(key: str, fact: Fact, when: tuple[Condition, ...]) -> str:
    if not fact.identity or key.split(".")[0] not in IDENTITY:
        return "no"
    if not when:
        return "yes"
    return f"where {' and '.join(_in_words(condition) for condition in when)}"


def _in_words(condition: Condition) -> str:
    return _plain_text(condition.__doc__ or "it is used").rstrip(".")


def _group(group: str) -> str:
    rows = [
        [f"`{group}={name}`", first_comment(CONF / group / f"{name}.yaml")]
        for name in options_of(group)
    ]
    if group == "teacher":
        rows = [[cell.replace("teacher=", "teacher@teacher.0="), text] for cell, text in rows]
    return f"### {group}\n\n{_table(('Choice', 'What it is'), rows)}"


def first_comment(path: Path) -> str:
    """The first comment of a YAML file that is no directive, its lines joined; or nothing."""
    found: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @"):
            continue
        if not line.startswith("#"):
            break
        found.append(line.lstrip("# "))
    return " ".join(found)


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [_line(list(head)), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _plain_text(text: str) -> str:
    return " ".join(text.split())


# Programming interface ----------------------------------------------------------------------

API_HEAD = """\
# Programming interface

The public names of the modules that other code may use, as they stand in the source: signature,
fields, docstring. Suffixes of tensors are their shapes; the legend stands at the head of each
module. Names that begin with an underscore are left out, and so are the values of options, which
stand in [configuration.md](configuration.md).
"""

EVERYTHING: tuple[str, ...] = ()
MODULES: dict[str, tuple[str, ...]] = {  # module or package → names (all where empty)
    "trainers.losses": EVERYTHING,
    "trainers.bottleneck": EVERYTHING,
    "trainers.models": EVERYTHING,
    "trainers.data": EVERYTHING,
    "trainers.views": EVERYTHING,
    "trainers.schedules": EVERYTHING,
    "trainers.methods": EVERYTHING,
    "trainers.distill": EVERYTHING,
    "trainers.finetune": EVERYTHING,
    "pipeline.config": ("ConfigError", "Config", "compose"),
    "pipeline.identity": ("run_key", "identity"),
    "analysis.runs": EVERYTHING,
    "analysis.stats": EVERYTHING,
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def api_page() -> str:
    """docs/api.md: the public names of `MODULES`, and the benchmarks."""
    files = [(path, names) for module, names in MODULES.items() for path in sources(module)]
    parts = [MADE + API_HEAD, *(text for path, names in files if (text := _module(path, names)))]
    return "\n".join([*parts, _benchmarks()])


def sources(module: str) -> list[Path]:
    """The files of a module, or of a package (`__init__.py` first)."""
    path = ROOT / module.replace(".", "/")
    return sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def dotted(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _module(path: Path, names: tuple[str, ...]) -> str:
    """A module's section; empty where it has no public name of its own."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    nodes = [n for n in tree.body if isinstance(n, Definition) and _public(n.name)]
    chosen = [n for n in nodes if not names or n.name in names]
    registry = _registry() if dotted(path) == "trainers.methods" else ""
    if not chosen and not registry:
        return ""
    stubs = [f"### {n.name}\n\n```python\n{stub(n, lines)}\n```\n" for n in chosen]
    about = [f"> {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines()]
    head = "\n".join([f"## {dotted(path)}\n", *about, ""])
    return "\n".join([part for part in (head, registry, *stubs) if part])


def _registry() -> str:
    rows = [
        [f"`{name}`", f"`{method.__name__}`", _plain_text((method.__doc__ or "").split("\n\n")[0])]
        for name, method in METHODS.items()
    ]
    return "`METHODS`:\n\n" + _table(("Name", "Class", "What it is"), rows)


def stub(node: Definition, lines: list[str]) -> str:
    """A definition as the source has it, down to the end of its docstring; of a class also its
    fields and public methods. Values of options are left out."""
    decorators = [d.lineno for d in node.decorator_list]
    first, body = node.body[0], node.body
    has_text = ast.get_docstring(node, clean=False) is not None
    end = first.end_lineno if has_text else max(node.lineno, _begin(first) - 1)
    head = lines[min([node.lineno, *decorators]) - 1 : end]
    text = textwrap.dedent("\n".join(head).rstrip())
    if not isinstance(node, ast.ClassDef):
        return text
    own = [
        _field(n, lines)
        for n in body
        if isinstance(n, ast.AnnAssign) and _public(ast.unparse(n.target))
    ]
    methods = [
        stub(n, lines)
        for n in body
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        and (_public(n.name) or n.name in ("__init__", "__call__"))
    ]
    parts = ["\n".join(own)] if own else []
    return "\n\n".join([text, *(textwrap.indent(part, "    ") for part in [*parts, *methods])])


def _field(node: ast.AnnAssign, lines: list[str]) -> str:
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "option":
        return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    return textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))


def _begin(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included."""
    decorators = node.decorator_list if isinstance(node, Definition) else []
    return min([node.lineno, *(d.lineno for d in decorators)])


def _public(name: str) -> bool:
    return not name.startswith("_")


def _benchmarks() -> str:
    """What can be run from `benchmarks/`: every module that is a command."""
    rows = []
    for path in sources("benchmarks"):
        source = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in source:
            about = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
            rows.append([f"`python -m {dotted(path)}`", _plain_text(about)])
    return "## Benchmarks\n\n" + _table(("Command", "What it measures"), rows)


if __name__ == "__main__":
    main()
