"""Arguments of the command line, as the verbs get them: flags apart, `--key value` as key=value."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from analysis.suggest import nearest
from pipeline.config.groups import LAUNCHER, OWN

HELP, HELP_FLAGS, VERSION = "help", ("-h", "--help"), "--version"
HYDRA_HELP = "--hydra-help"
DRY_RUN, CANCEL = "--dry-run", "--cancel"
CONFIG_DIR = ("--config-dir", "-cd")
FLAGS = (
    "--help",
    DRY_RUN,
    "--multirun",
    CANCEL,
    "--cfg",
    "--package",
    "--resolve",
    "--info",
    "--config-name",
    "--config-dir",
    "--shell-completion",
    "--hydra-help",
    VERSION,
)
SEVERAL = ("-m", "--multirun")
SWITCHES = ("--multirun", DRY_RUN, CANCEL, "--resolve", "--run")  # flags without a value
SHOW = "show"  # distill, printed in the place of running it
STAGES = ("main", "finetune", "bank", "distill")  # verbs that run stages
COMPOSE = (*STAGES, SHOW)  # verbs that the environment's shortcuts are for
USE_STORE = (*STAGES, "evaluate", "sync")  # verbs with the option runtime.store
# Parameters that MLproject declares, which arrive empty where they are not given.
DECLARED = {
    "main": ("cfg=", "bench=", "seed="),
    "finetune": ("teacher=", "bench="),
    "bank": ("teacher=", "bench="),
    SHOW: ("cfg=", "bench=", "seed="),
    "distill": ("cfg=", "bench=", "seed="),
    "evaluate": ("split=",),
    "analyze": ("what=", "bench="),
    "export": ("out=", "bench="),
}
PATHS = ("out", "store", "runtime.store")  # options of verbs that are or may be paths


def strange_words(arguments: Sequence[str]) -> list[str]:
    """A sentence for each word with a line end or another control character, each unknown flag,
    and each `=` between blanks."""
    words, found = list(arguments), []
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word == "=":
            found.append(f"{before} = {after}: no blanks around it, as in {before}={after}")
        elif word in CONFIG_DIR:
            found.append(f"{word}: a folder is needed")
        elif _is_flag(word) and (not after or _is_flag(after)):
            found.append(f"{word}: no such flag{nearest(word, FLAGS, show_all=True)}")
    for word in arguments:
        if {unicodedata.category(character) for character in word} & {"Cc", "Cs"}:
            windows = " (a script with Windows' line ends?)" if word.endswith("\r") else ""
            found.append(f"{word!r}: a control character or a byte that is no UTF-8{windows}")
    return found


def _is_flag(word: str) -> bool:
    known = (*SEVERAL, CANCEL)
    return word.startswith("-") and "=" not in word and word not in known and len(word) > 1


def without_config_dir(arguments: Sequence[str]) -> list[str]:
    """The other arguments; `--config-dir FOLDER` among them sets ASIB_CONF for this process and
    its jobs."""
    found = list(arguments)
    for number, word in enumerate(found):
        flag, equals, folder = word.partition("=")
        if flag not in CONFIG_DIR or not (equals or found[number + 1 :]):
            continue
        os.environ[OWN] = os.path.abspath(os.path.expanduser(folder or found[number + 1]))
        return found[:number] + found[number + 1 + (not equals) :]
    return found


def without_dry_run(arguments: Sequence[str]) -> list[str]:
    """The other arguments; `--dry-run` among them sets DRY_RUN=1 for this process."""
    if DRY_RUN in arguments:
        os.environ["DRY_RUN"] = "1"
    return [text for text in arguments if text != DRY_RUN]


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether --help or -h is among them."""
    return any(flag in arguments for flag in HELP_FLAGS)


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether several runs are requested: by -m, or by a launcher."""
    chosen = (text.lstrip("+").startswith(f"{LAUNCHER}=") for text in as_overrides(arguments))
    return any(word in SEVERAL for word in arguments) or any(chosen)


def plain_switches(arguments: Sequence[str]) -> list[str]:
    """The arguments with switches as they are typed: MLflow passes -P dry_run=true on as
    `--dry_run true`, and `dry_run=true` means the same."""
    found: list[str] = []
    parts = [part for text in arguments for part in _parted(text)]
    for word in parts:
        if found and (switch := _dashed(found[-1])) in SWITCHES and word in ("true", "false"):
            found[-1:] = [switch] if word == "true" else []
        else:
            found.append(word)
    return found


def _parted(word: str) -> tuple[str, ...]:
    """A switch and its value; another word as it is. (`run` is an option of verbs.)"""
    key, _, value = word.partition("=")
    known = key.lstrip("-") != "run" and _dashed(f"--{key.lstrip('-')}") in SWITCHES
    return (f"--{key.lstrip('-')}", value) if known and value in ("true", "false") else (word,)


def _dashed(flag: str) -> str:
    return flag.replace("_", "-")


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments as key=value, without flags; MLflow passes undeclared -P key=value on as
    `--key value`."""
    found, rest = [], [text for text in arguments if text not in (*SEVERAL, CANCEL)]
    while rest:
        text = rest.pop(0)
        if text.startswith("--") and "=" not in text and rest:
            text = f"{text}={rest.pop(0)}"
        found.append(text.removeprefix("--"))
    return found


def options(overrides: Sequence[str]) -> dict[str, str]:
    """The options of a verb that composes no configuration, by name.

    Raises:
        ConfigError: an option without a value.
    """
    from pipeline.config import ConfigError

    pairs = [(key, value) for text in overrides for key, eq, value in [text.partition("=")] if eq]
    if empty := [f"{key}=: empty; leave it out, or give a value" for key, v in pairs if not v]:
        raise ConfigError(empty)
    return {key: os.path.expanduser(v) if key in PATHS else v for key, v in pairs}


def overrides_of(verb: str, arguments: Sequence[str]) -> list[str]:
    """The overrides of a verb, with the environment's shortcuts where it runs stages; those are
    printed.

    Raises:
        ConfigError: a shortcut without meaning, or DRY_RUN for a verb that has no plan.
    """
    from pipeline.cli.console import say
    from pipeline.cli.environment import dry_run, with_shortcuts
    from pipeline.config import ConfigError

    if strange := strange_words(arguments):
        raise ConfigError(strange)
    given = [text for text in as_overrides(arguments) if text not in DECLARED.get(verb, ())]
    if verb in USE_STORE:
        given = lasting(given)
    if verb not in COMPOSE:
        if deleted := [text for text in given if text.startswith("~")]:
            raise ConfigError([f"{text}: {verb} composes no run" for text in deleted])
        if dry_run(os.environ):
            plans = f"{', '.join(STAGES)} and of studies"
            raise ConfigError([f"DRY_RUN shows the plan of {plans}, not of {verb}: leave it out"])
        return given
    found = with_shortcuts(given, os.environ)
    if len(found) > len(given):
        say(f"from the environment: {' '.join(found[: len(found) - len(given)])}")
    return found


def lasting(overrides: list[str]) -> list[str]:
    """The overrides with the store of a project that runs in a temporary copy, which is printed."""
    from pipeline.cli.console import say
    from pipeline.cli.environment import with_lasting_store

    found = with_lasting_store(overrides, os.environ, Path.cwd())
    if found is not overrides:
        say(f"temporary copy of the project: {found[0]} (another: -P runtime.store=PATH)")
    return found
