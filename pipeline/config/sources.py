"""The composed configuration as YAML, with the source of every value: what `--cfg` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.config.composition import chosen, compose
from pipeline.config.groups import CONF, folders

DEFAULT, GIVEN = "default of the option", "command line"


def as_yaml(overrides: list[str]) -> str:
    """The configuration of these overrides; every value has its source as a comment.

    Raises:
        ConfigError: errors in the overrides.
    """
    config = compose(overrides)
    return "\n".join(_lines(asdict(config), sources(overrides)))


def sources(overrides: list[str]) -> dict[str, str]:
    """By dotted option: the last file that sets it, or the command line."""
    choices, given = chosen(overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list("config", choices, RunMode.RUN).defaults
    by_key: dict[str, str] = {}
    for one in found:
        files = [folder / f"{one.config_path}.yaml" for folder in folders()]
        path = next((path for path in files if path.is_file()), None)
        if path is not None:
            values = OmegaConf.to_container(OmegaConf.load(path))
            keys = _keys(values, f"{one.package}." if one.package else "")
            shown = str(path.relative_to(CONF.parent)) if path == files[-1] else str(path)
            by_key |= dict.fromkeys(keys, shown)
    return by_key | dict.fromkeys(given, GIVEN)


def _keys(values: Any, prefix: str) -> Iterator[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        if key == "defaults":
            continue
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _lines(values: dict[str, Any], origin: dict[str, str], prefix: str = "") -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, origin, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(
                value, default_flow_style=True, allow_unicode=True, width=math.inf
            )
            text = text.removesuffix("...\n").strip()
            yield f"{indent}{key}: {text}  # {origin.get(f'{prefix}{key}', DEFAULT)}"
