"""Arguments of the command line, as the verbs get them: flags apart, `--key value` as key=value."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.groups import LAUNCHER, OWN

HELP, HELP_FLAGS, VERSION = "help", ("-h", "--help"), "--version"
DRY_RUN, CANCEL = "--dry-run", "--cancel"
CONFIG_DIR = ("--config-dir", "-cd")
SEVERAL = ("-m", "--multirun")
STAGES = ("main", "finetune", "bank", "distill")  # verbs that the environment's shortcuts are for
USE_STORE = (*STAGES, "evaluate", "sync")  # verbs with the option runtime.store
# Parameters that MLproject declares, which arrive empty where they are not given.
DECLARED = {
    "main": ("cfg=", "bench=", "seed="),
    "finetune": ("teacher=", "bench="),
    "distill": ("cfg=", "bench=", "seed="),
    "evaluate": ("split=",),
    "analyze": ("what=", "bench="),
    "export": ("out=", "bench="),
}
PATHS = ("out", "store", "runtime.store")  # options of verbs that are or may be paths


SHOWN = ("job", "all", "hydra")  # what Hydra's --cfg can print
HYDRA_FLAGS = {
    "--config-name": "the configuration is conf/config.yaml; choose its groups, as in bench=digits "
    "or experiment=NAME",
    "--config-path": "the configuration is in conf/; --config-dir names a folder of your own",
    "--info": "--cfg prints the configuration with the source of every value",
    "--resolve": "--cfg prints resolved values",
    "--package": "--cfg prints the whole configuration",
    "--run": "leave it out: one run is the default",
    "--shell-completion": "there is none; --help lists verbs and options",
    "--hydra-help": "python -m pipeline --help",
}
_SHORT = {
    "-cn": "--config-name",
    "-cp": "--config-path",
    "-i": "--info",
    "-p": "--package",
    "-r": "--run",
    "-sc": "--shell-completion",
}


def without_cfg(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """(the other arguments, whether Hydra's `--cfg job` or `-c job` is among them). `--cfg L3` is
    MLflow's form of cfg=L3."""
    words = list(arguments)
    for number, word in enumerate(words):
        after = words[number + 1] if number + 1 < len(words) else SHOWN[0]
        if word in ("--cfg", "-c") and (after in SHOWN or "=" in after or after.startswith("-")):
            return words[:number] + words[number + 1 + (after in SHOWN) :], True
        if word in [f"--cfg={what}" for what in SHOWN]:
            return words[:number] + words[number + 1 :], True
    return words, False


def strange_words(arguments: Sequence[str]) -> list[str]:
    """A sentence for each flag of Hydra and each deletion that has no meaning here, and for each
    word with a line end or another control character."""
    found = []
    for word in arguments:
        if {unicodedata.category(character) for character in word} & {"Cc", "Cs"}:
            windows = " (a script with Windows' line ends?)" if word.endswith("\r") else ""
            found.append(f"{word!r}: a control character or a byte that is no UTF-8{windows}")
            continue
        flag = _SHORT.get(word, word.partition("=")[0])
        if flag in HYDRA_FLAGS:
            found.append(f"{word}: no flag here: {HYDRA_FLAGS[flag]}")
        elif word.startswith("~"):
            key = word[1:].partition("=")[0]
            found.append(f"{word}: nothing is deleted here; a value is taken away with {key}=null")
    return found


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
    return any(a in SEVERAL or a.lstrip("-+").startswith(f"{LAUNCHER}=") for a in arguments)


def named_experiment(arguments: Sequence[str]) -> list[str]:
    """The arguments with `-cn experiment/NAME` as `experiment=NAME`."""
    found = list(arguments)
    for number, word in enumerate(found):
        flag, equals, name = word.partition("=")
        if _SHORT.get(flag, flag) != "--config-name":
            continue
        after = name if equals else (found[number + 1 : number + 2] or [""])[0]
        if after.startswith("experiment/"):
            found[number : number + 1 + (not equals)] = [after.replace("/", "=", 1)]
            break
    return found


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

    arguments = named_experiment(arguments)
    if strange := strange_words(arguments):
        raise ConfigError(strange)
    given = [text for text in as_overrides(arguments) if text not in DECLARED.get(verb, ())]
    if verb in USE_STORE:
        given = lasting(given)
    if verb not in STAGES:
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
