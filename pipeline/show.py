"""What a command would use, printed in the place of running it: `show`, `--cfg` and `--info`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import yaml
from omegaconf import OmegaConf

from analysis.suggest import nearest
from pipeline.cli.environment import listed_teachers
from pipeline.cli.hydra_flags import Shown
from pipeline.config import Config, ConfigError, compose
from pipeline.config.composition import chosen
from pipeline.config.groups import LAUNCHER
from pipeline.config.hydra_files import hydra_part, print_info
from pipeline.config.sources import DEFAULT, sources
from pipeline.config.sweep import expand
from pipeline.identity import key_options, same_experiment
from pipeline.launch.options import LOCAL, PREFIX, take_options

WHOLE = "_global_"  # Hydra's name of the whole configuration


def show(verb: str, overrides: list[str], wanted: Shown) -> None:
    """Print the configuration of a command, or what Hydra knows of it.

    Raises:
        ConfigError: errors in the overrides, the launcher's options or the flags.
    """
    _, rest, errors = take_options(overrides)
    if verb in ("finetune", "bank"):
        _, rest = listed_teachers(rest)
    if errors:
        raise ConfigError(errors)
    if wanted.info is not None:
        compose(rest)  # its errors
        choices, _ = chosen(rest)
        print_info(wanted.info, choices)
        return
    if wanted.cfg != "hydra":
        stage = "finetune" if verb in ("finetune", "bank") else "distill"
        several = expand(rest)
        if len(several) > 1:
            print("\n".join(differences(stage, [list(one) for one in several])))
        else:
            print(as_yaml(stage, rest, wanted.package or WHOLE))
    if wanted.cfg in ("hydra", "all"):
        print(_of_hydra([text for text in overrides if text not in rest], wanted))


def as_yaml(stage: str, overrides: list[str], package: str = WHOLE) -> str:
    """The configuration of these overrides, or a part of it; every value has as a comment where it
    is from, and whether it is part of the key of the run.

    Raises:
        ConfigError: errors in the overrides; no such part.
    """
    config = compose(overrides)
    origin, counting = sources(overrides), key_options(stage, config)
    values, prefix = _part(asdict(config), package), "" if package == WHOLE else f"{package}."

    def comment(key: str) -> str:
        return f"{origin.get(key, DEFAULT)}; {'' if key in counting else 'not '}in the key"

    head = [] if package == WHOLE else [f"# @package {package}"]
    if not isinstance(values, dict):
        return "\n".join([*head, f"{_text(values)}  # {comment(package)}"])
    lines = _lines(values, prefix, depth=0)
    return "\n".join([*head, *(f"{text}  # {comment(k)}" if k else text for text, k in lines)])


def differences(stage: str, several: list[list[str]]) -> list[str]:
    """The options in which configurations differ, with the value and the source of each, and
    whether they are one experiment.

    Raises:
        ConfigError: errors in any of them.
    """
    configs, errors = list[Config](), list[str]()
    for one in several:
        try:
            configs.append(compose(one))
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    flat = [dict(_flat(asdict(config))) for config in configs]
    counting = set().union(*(key_options(stage, config) for config in configs))
    origins = [sources(one) for one in several]
    own = [" ".join(t for t in one if not all(t in o for o in several)) for one in several]
    width = max(map(len, own))
    found = []
    for key in dict.fromkeys(key for values in flat for key in values):
        texts = [_text(values[key]) if key in values else "-" for values in flat]
        if len(set(texts)) > 1:
            found.append(f"{key}  # {'' if key in counting else 'not '}in the key")
            for name, text, origin in zip(own, texts, origins, strict=True):
                source = f"  # {origin.get(key, DEFAULT)}" if text != "-" else ""
                found.append(f"  {name:{width}}  {text}{source}")
    keys = {same_experiment("distill", config) for config in configs}
    count = f"{len(keys)} experiments" if len(keys) > 1 else "one experiment: the same key"
    return [*found, f"{len(several)} configurations, {count}"]


def _part(values: Any, package: str) -> Any:
    """The values below a dotted name.

    Raises:
        ConfigError: there is none of that name.
    """
    if package == WHOLE:
        return values
    for name in package.split("."):
        if not isinstance(values, dict) or name not in values:
            known = list(values) if isinstance(values, dict) else []
            raise ConfigError([f"--package {package}: unknown{nearest(name, known, True)}"])
        values = values[name]
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _lines(values: dict[str, Any], prefix: str, *, depth: int) -> Iterator[tuple[str, str]]:
    """(a line of YAML, the dotted option whose value it has; empty for a group)."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{'  ' * depth}{key}:", ""
            yield from _lines(value, f"{prefix}{key}.", depth=depth + 1)
        else:
            yield f"{'  ' * depth}{key}: {_text(value)}", f"{prefix}{key}"


def _of_hydra(given: list[str], wanted: Shown) -> str:
    """Hydra's own part: the launcher, and what it has of folders and logs, which is not used."""
    given = [text.lstrip("+") for text in given]
    if not any(text.startswith(f"{LAUNCHER}=") for text in given):
        given = [f"{LAUNCHER}={LOCAL}", *given]
    words = [f"++{text}" if text.startswith(PREFIX) else text for text in given]
    part = OmegaConf.create({"hydra": hydra_part(words)})
    package = wanted.package if wanted.cfg == "hydra" else None
    if package not in (None, WHOLE):
        _part(OmegaConf.to_container(part), str(package))  # raises where it is unknown
        chosen_part = OmegaConf.select(part, str(package), throw_on_resolution_failure=False)
        text = _text(chosen_part) if chosen_part is None else chosen_part
        if OmegaConf.is_config(chosen_part):
            text = OmegaConf.to_yaml(chosen_part, resolve=wanted.resolve).rstrip()
        return f"# @package {package}\n{text}"
    return OmegaConf.to_yaml(part, resolve=wanted.resolve).rstrip()
