"""Flags of Hydra's command line, taken apart from the overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.suggest import nearest
from pipeline.config.groups import options_of

CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
PAGE = """\
flags of Hydra, after any verb that trains, `show`, and a study
  --cfg, -c job|hydra|all      print the configuration; nothing is run
  --package, -p NAME           of it this part, such as optim or method.tau
  --resolve                    with --cfg hydra: references as values (job has values always)
  --info, -i [WHAT]            all, config, defaults, defaults-tree, plugins, searchpath
  --config-name, -cn NAME      config, or experiment/NAME
  --config-dir, -cd FOLDER     files of your own, before conf/ (or ASIB_CONF)
  --multirun, -m               several runs: cfg=L0,L1 seed=range(3) experiment=glob(sota*)
  --run, -r                    one run, the default
  --shell-completion, -sc      eval "$(asib -sc install=bash)"; uninstall=bash
  --help, -h   --hydra-help    pages of help
  --version                    of this project
`key=value`, `+key=value` and `++key=value` are the same; `~key` takes away what the files set.
--config-path and --experimental-rerun do not exist here: they say what to do in their place.
"""
_LONG = {
    "-c": "--cfg",
    "-cn": "--config-name",
    "-cp": "--config-path",
    "-i": "--info",
    "-p": "--package",
    "-r": "--run",
    "-sc": "--shell-completion",
}
_INSTEAD = {
    "--config-path": "the configuration is in conf/; --config-dir names a folder of your own",
    "--experimental-rerun": "no pickle is kept of a run; run its command again (it is in the run's "
    "parameter `overrides`), and what is finished is reused",
}
_SWITCHES = ("--resolve", "--run")


@dataclass(frozen=True)
class Shown:
    """What a command prints in the place of running."""

    cfg: str | None = None
    info: str | None = None
    package: str | None = None
    resolve: bool = False
    completion: str | None = None

    def __bool__(self) -> bool:
        return any((self.cfg, self.info, self.package, self.resolve, self.completion))


def taken(arguments: Sequence[str]) -> tuple[Shown, list[str], list[str]]:
    """(what to print, the other arguments, errors in flags). `--cfg L3` is MLflow's form of
    cfg=L3."""
    shown, rest, errors, words = Shown(), list[str](), list[str](), list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        flag = _LONG.get(flag, flag)
        if flag == "--cfg" and (found := _choice(equals, value, words, CFG)):
            shown = replace(shown, cfg=found)
        elif flag == "--info" and (found := _choice(equals, value, words, INFO)):
            shown = replace(shown, info=found)
        elif flag == "--info":
            errors.append(f"{word} {_value(equals, value, words)}: {_one_of(INFO)}")
        elif flag in _SWITCHES and not equals:
            shown = replace(shown, resolve=shown.resolve or flag == "--resolve")
        elif flag == "--package":
            shown = replace(shown, package=_value(equals, value, words) or "_global_")
        elif flag == "--shell-completion":
            shown = replace(shown, completion=_value(equals, value, words) or "install=bash")
        elif flag == "--config-name":
            rest += _named(_value(equals, value, words), errors)
        elif flag in _INSTEAD:
            errors.append(f"{word}: no flag here: {_INSTEAD[flag]}")
            _value(equals, value, words)
        else:
            rest.append(word)
    return shown, rest, errors


def _value(equals: str, value: str, words: list[str]) -> str:
    """The value of a flag, taken from the words after it."""
    if equals:
        return value
    return words.pop(0) if words and not words[0].startswith("-") else ""


def _choice(equals: str, value: str, words: list[str], allowed: Sequence[str]) -> str:
    """The value of a flag that may be left out; empty: it is none of those allowed."""
    if equals:
        return value if value in allowed else ""
    if words and words[0] in allowed:
        return words.pop(0)
    none = not words or "=" in words[0] or words[0].startswith("-")
    return allowed[0] if none else ""


def _named(name: str, errors: list[str]) -> list[str]:
    """`-cn experiment/NAME` as an override."""
    name = name.removesuffix(".yaml")
    if name.startswith("experiment/"):
        return [name.replace("/", "=", 1)]
    if name != "config":
        names = ["config", *(f"experiment/{one}" for one in options_of("experiment"))]
        errors.append(f"--config-name {name}: {_one_of(names, name)}")
    return []


def _one_of(names: Sequence[str], word: str = "") -> str:
    return f"unknown{nearest(word, names, show_all=True)}"
