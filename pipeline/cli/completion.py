"""Completion of command lines by bash: `eval "$(asib -sc install=bash)"`, as Hydra has it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from analysis.suggest import nearest
from pipeline.cli.arguments import COMPOSE
from pipeline.config.errors import ConfigError
from pipeline.config.groups import GROUPS, LAUNCHER, options_of

PIPELINE, SWEEPS = "pipeline", "sweeps"
INSTALL = """\
_asib_complete() {
    local words=($COMP_LINE) ask=asib choices
    if [[ ${words[0]} == python* ]]; then
        [[ ${words[1]} == -m && ${words[2]} =~ ^(pipeline|sweeps)$ ]] || return
        ask="${words[0]} -m ${words[2]}"
    fi
    choices=$(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT $ask -sc query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _asib_complete asib python python3"""
UNINSTALL = "complete -r asib python python3; unset -f _asib_complete"
_FLAGS = ("--cfg", "--info", "--package", "--config-dir", "--dry-run", "--help", "--multirun")
_OF_VERB: dict[str, dict[str, tuple[str, ...]]] = {
    "evaluate": {"run": (), "split": ("val", "test", "train")},
    "analyze": {"what": (), "experiment": (), "out": (), "store": ()},
    "export": {"out": (), "experiment": ()},
    "sync": {"runtime.store": (), "contents": ("true", "false")},
    "finetune": {"teacher": ("all", "0", "1")},
    "bank": {"teacher": ("all", "0", "1")},
}
_OF_STUDY: dict[str, tuple[str, ...]] = {
    "trials": (),
    "seeds": (),
    "workers": (),
    "sampler": ("grid", "tpe", "gp", "random"),
    "pruner": ("none", "hyperband", "median"),
}


def command(request: str, program: str, verbs: Sequence[str] = ()) -> None:
    """Print what `-sc install=bash`, `uninstall=bash` or `query=bash` asks for.

    Raises:
        ConfigError: another shell, or another request.
    """
    what, _, shell = request.partition("=")
    known = {"install": INSTALL, "uninstall": UNINSTALL, "query": ""}
    if what not in known or shell != "bash":
        allowed = [f"{name}=bash" for name in known]
        about = "; zsh reads it after `autoload -U bashcompinit && bashcompinit`"
        raise ConfigError([f"-sc {request}: unknown{nearest(request, allowed, True)}{about}"])
    if what != "query":
        print(known[what])
        return
    line = os.environ.get("COMP_LINE", "")
    line = line[: int(os.environ.get("COMP_POINT") or len(line))]
    print("\n".join(candidates(line, program, verbs)))


def candidates(line: str, program: str, verbs: Sequence[str] = ()) -> list[str]:
    """The words that may stand at the end of a command line, the word under way included."""
    words = line.split()
    words = words[3:] if words[:1] and words[0].startswith("python") else words[1:]
    current = words.pop() if words and not line.endswith((" ", "\t")) else ""
    if program == PIPELINE and words[:1] == ["sweep"]:
        program, words = SWEEPS, words[1:]
    given = [word for word in words if not word.startswith("-")]
    names = options_of("study") if program == SWEEPS else [*verbs, "sweep"]
    found = _offered(given, current, program) if given or current.startswith("-") else names
    return sorted(one for one in found if one.startswith(current))


def _offered(given: list[str], current: str, program: str) -> Iterable[str]:
    if current.startswith("-"):
        return _FLAGS
    verb = given[0]
    sign = current[: len(current) - len(current.lstrip("+~"))]
    key, equals, _ = current[len(sign) :].partition("=")
    own = _OF_STUDY if program == SWEEPS else _OF_VERB.get(verb, {})
    if equals:
        return [f"{sign}{key}={value}" for value in own.get(key) or _values(key)]
    found = [f"{name}=" for name in own]
    if program == SWEEPS or verb in COMPOSE:
        names = [*GROUPS, LAUNCHER, *(_options() if "." in current else _tops())]
        found += [f"{sign}{name}" if sign == "~" else f"{sign}{name}=" for name in names]
        found += [] if "." in current else [f"{sign}{name}." for name in _sections()]
    return found


def _values(key: str) -> Iterable[str]:
    """The names of a group, or the values that an option is limited to."""
    group = key.partition("@")[0]
    if group in GROUPS or group == LAUNCHER:
        return options_of(group)
    from pipeline.config.overrides import choices_of

    return choices_of(key)


def _tops() -> tuple[str, ...]:
    return ("seed", "select", "overlap", "overlap_seed")


def _sections() -> tuple[str, ...]:
    groups = (name for name in GROUPS if name not in ("cfg", "experiment"))
    return (*groups, "bank", "mix", "runtime")


def _options() -> list[str]:
    """Every dotted option; takes torch, whose registries have some of them."""
    from pipeline.config.overrides import known_keys

    return known_keys()
