"""Configuration: Hydra composes YAML values, dataclasses check them.

The names below are loaded at their first use: listing conf/ (`groups`), as --help does, must not
import torch or Hydra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.composition import compose
    from pipeline.config.errors import ConfigError
    from pipeline.config.schema import BenchConfig, Config, RuntimeConfig

__all__ = ["BenchConfig", "Config", "ConfigError", "RuntimeConfig", "compose"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"compose": "composition", "ConfigError": "errors"}.get(name, "schema")
    return getattr(import_module(f"{__name__}.{module}"), name)
