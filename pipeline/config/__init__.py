"""Configuration: Hydra composes YAML values, dataclasses check them."""

from pipeline.config.schema import (
    BASE_TEACHERS,
    BenchConfig,
    Config,
    ConfigError,
    RuntimeConfig,
    compose,
)

__all__ = ["BASE_TEACHERS", "BenchConfig", "Config", "ConfigError", "RuntimeConfig", "compose"]
