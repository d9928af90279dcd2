"""Study: the base configuration, the options that vary, the sampler and the seeds, as a value."""

from __future__ import annotations

import itertools
import json
import math
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import Config, ConfigError
from pipeline.config.composition import composed
from pipeline.identity import digest_of, identity

OWN = "own"  # in `enqueue`: the value of the base configuration
ROW = "row"  # the parameter of a study whose configurations have names (`rows` of its file)
NAME_LENGTH = 8

Params = dict[str, Any]  # parameters of a trial: option (or "row") -> value


@dataclass(frozen=True)
class Study:
    """A study. Two studies of one `key` are the same and share their trials."""

    name: str
    base: list[str]  # overrides of every trial: the file's, then those of the command
    sampler: str = "grid"
    pruner: str = "none"
    trials: int | None = None  # None: all configurations of the grid
    seeds: tuple[int, ...] = (0,)
    space: dict[str, Any] | None = None  # option -> values, or {low, high, log}
    rows: dict[str, list[str]] | None = None  # name -> overrides
    enqueue: tuple[Params, ...] = ()  # configurations that are tried first
    claim: dict[str, Any] | None = None  # the primary claim: rung, control, margin, seeds

    @cached_property
    def config(self) -> Config:
        """The base configuration, at the first seed."""
        return composed((*self.base, f"seed={self.seeds[0]}"))

    @cached_property
    def key(self) -> str:
        """`beta-1f3a9c20`: the name, with the hash of everything that decides what a trial is.

        Reads the data set.
        """
        values = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("base", "trials", "claim")
        }
        definition = json.loads(json.dumps(values)) | {"identity": identity("distill", self.config)}
        return f"{self.name}-{digest_of(definition)[:NAME_LENGTH]}"

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distribution that a sampler samples from, by parameter."""
        found = {key: _distribution(value) for key, value in (self.space or {}).items()}
        return found | ({ROW: CategoricalDistribution(list(self.rows))} if self.rows else {})

    @property
    def known_params(self) -> list[Params]:
        """Configurations known beforehand: all of a grid, else those of `enqueue`."""
        if self.sampler == "grid":
            choices = {
                key: typing.cast(CategoricalDistribution, one).choices
                for key, one in self.distributions.items()
            }
            return [
                dict(zip(choices, v, strict=True)) for v in itertools.product(*choices.values())
            ]
        return [
            {key: _own(self.config, key) if v == OWN else v for key, v in params.items()}
            for params in self.enqueue
        ]

    @property
    def wanted(self) -> int:
        """The number of trials that the study runs."""
        return self.trials or len(self.known_params)

    @property
    def selects(self) -> bool:
        """Whether the study selects its best trial: it samples, or varies numbers of a recipe like
        `method.ib_beta`. A study of named configurations, rungs (`cfg`) or problems (`overlap`)
        compares instead."""
        return self.sampler != "grid" or any("." in option for option in self.space or {})

    def at(self, params: Params, seed: int) -> Config:
        """The configuration of one run of a trial.

        Raises:
            ConfigError: the parameters do not fit the base.
        """
        return replace(composed(tuple(self.overrides(params, self.seeds[0]))), seed=seed)

    def overrides(self, params: Params, seed: int) -> list[str]:
        """The command line of one run of a trial."""
        own = [text for key, value in params.items() for text in self._texts_of(key, value)]
        return merged([*self.base, *own, f"seed={seed}"])

    def _texts_of(self, key: str, value: Any) -> list[str]:
        if key == ROW and self.rows:
            return list(self.rows[value])
        return [f"{key}={text_of(value)}"]


def merged(overrides: list[str]) -> list[str]:
    """Overrides with one for each key: the last."""
    last = {text.lstrip("+").partition("=")[0]: text for text in overrides}
    return list(last.values())


def text_of(value: Any) -> str:
    """A value as written in an override."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _distribution(value: Any) -> BaseDistribution:
    if isinstance(value, list):
        return CategoricalDistribution(value)
    low, high, log = value["low"], value["high"], bool(value.get("log", False))
    whole = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log)


def _own(config: Config, key: str) -> Any:
    """The value that a configuration has at a dotted key.

    Raises:
        ConfigError: it has no such key.
    """
    value: Any = config
    for part in key.split("."):
        options = value if isinstance(value, dict) else vars(value) if is_dataclass(value) else {}
        if part not in options:
            raise ConfigError([f"enqueue: {key}: {OWN}: the base has no such option"])
        value = options[part]
    return value


def contains(distributions: dict[str, BaseDistribution], params: Params) -> bool:
    """Whether a space contains these parameters; a log-uniform range does not contain beta = 0."""
    if distributions.keys() != params.keys():
        return False
    for key, one in distributions.items():
        value = params[key]
        if isinstance(one, CategoricalDistribution):
            if value not in one.choices:
                return False
        elif not one.low <= value <= one.high or math.isnan(value):  # type: ignore[attr-defined]
            return False
    return True
