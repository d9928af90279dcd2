"""A YAML file of the user's: its values, or one message with the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from pipeline.config.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """The options of a file, by name.

    Raises:
        ConfigError: no YAML, no text, or no options with values.
    """
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError([f"{path}: {yaml_reason(error)}"]) from error
    if not isinstance(found, dict):
        raise ConfigError([f"{path}: holds no options with values (KEY: VALUE)"])
    return {str(key): value for key, value in found.items()}


def yaml_reason(error: Exception) -> str:
    """What is wrong with a YAML file, in one line, with the file and line where they are known."""
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark) is not None:
        return f"{Path(mark.name).name}, line {mark.line + 1}: {error.problem}"
    return str(error).strip().splitlines()[0]
