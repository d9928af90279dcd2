"""The source of every value of a configuration: a file, or the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from pipeline.config.composition import chosen
from pipeline.config.groups import CONF, folders
from pipeline.config.hydra_files import defaults_list
from pipeline.config.overrides import Deleted

DEFAULT, GIVEN = "default of the option", "command line"


def sources(overrides: list[str]) -> dict[str, str]:
    """By dotted option: the last file that sets it, or the command line."""
    choices, given = chosen(overrides)
    by_key: dict[str, str] = {}
    for one in defaults_list(choices):
        files = [folder / f"{one.config_path}.yaml" for folder in folders()]
        path = next((path for path in files if path.is_file()), None)
        if path is not None:
            values = OmegaConf.to_container(OmegaConf.load(path))
            keys = _keys(values, f"{one.package}." if one.package else "")
            shown = str(path.relative_to(CONF.parent)) if path == files[-1] else str(path)
            by_key |= dict.fromkeys(keys, shown)
    for key, value in given.items():
        by_key[key] = DEFAULT if isinstance(value, Deleted) else GIVEN
    return by_key


def _keys(values: Any, prefix: str) -> Iterator[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        if key == "defaults":
            continue
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
