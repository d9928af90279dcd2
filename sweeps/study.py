"""A study as a value: what is varied, over which base, by which sampler, at which seeds."""

from __future__ import annotations

import itertools
import json
import math
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import Config, ConfigError, compose
from pipeline.identity import digest_of, identity

OWN = "own"  # in `enqueue`: the value that the base configuration has
ROW = "row"  # the parameter of a study that varies rows of several overrides
NAME_LENGTH = 8

Point = dict[str, Any]  # what one trial sets: option (or "row") -> value


@dataclass(frozen=True)
class Study:
    """What a study asks. Two studies of one `key` are the same and share their trials."""

    name: str
    base: list[str]  # overrides of every trial: the file's, then those that were typed
    sampler: str = "grid"
    pruner: str = "none"
    trials: int | None = None  # None: as many as the grid has points
    seeds: tuple[int, ...] = (0,)
    space: dict[str, Any] | None = None  # option -> values, or {low, high, log}
    rows: dict[str, list[str]] | None = None  # name -> overrides
    enqueue: tuple[Point, ...] = ()  # points that are tried first

    @cached_property
    def config(self) -> Config:
        """The base configuration, at the first seed."""
        return composed((*self.base, f"seed={self.seeds[0]}"))

    @cached_property
    def key(self) -> str:
        """`beta-1f3a9c20`: the name, with the hash of everything that decides what a trial is."""
        plain = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("base", "trials")
        }
        asked = json.loads(json.dumps(plain)) | {"identity": identity("distill", self.config)}
        return f"{self.name}-{digest_of(asked)[:NAME_LENGTH]}"

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What a sampler draws from, by parameter."""
        found = {key: _distribution(value) for key, value in (self.space or {}).items()}
        return found | ({ROW: CategoricalDistribution(list(self.rows))} if self.rows else {})

    @property
    def points(self) -> list[Point]:
        """The points that are tried first: all of a grid, else those that the file names."""
        if self.sampler == "grid":
            choices = {
                key: typing.cast(CategoricalDistribution, one).choices
                for key, one in self.distributions.items()
            }
            return [
                dict(zip(choices, v, strict=True)) for v in itertools.product(*choices.values())
            ]
        return [
            {key: _own(self.config, key) if v == OWN else v for key, v in point.items()}
            for point in self.enqueue
        ]

    @property
    def wanted(self) -> int:
        """How many trials are asked for."""
        return self.trials or len(self.points)

    @property
    def selects(self) -> bool:
        """Whether it looks for the best trial: it draws, or varies numbers of a recipe, such as
        `method.ib_beta`. What varies rows, rungs (`cfg`) or the problem (`overlap`) compares."""
        return self.sampler != "grid" or any("." in option for option in self.space or {})

    def at(self, point: Point, seed: int) -> Config:
        """The configuration of one run of a trial.

        Raises:
            ConfigError: the point does not fit the base.
        """
        return replace(composed(tuple(self.overrides(point, self.seeds[0]))), seed=seed)

    def overrides(self, point: Point, seed: int) -> list[str]:
        """The command line of one run of a trial."""
        own = [text for key, value in point.items() for text in self._spoken(key, value)]
        return merged([*self.base, *own, f"seed={seed}"])

    def _spoken(self, key: str, value: Any) -> list[str]:
        if key == ROW and self.rows:
            return list(self.rows[value])
        return [f"{key}={spoken(value)}"]


@lru_cache(maxsize=1024)
def composed(overrides: tuple[str, ...]) -> Config:
    """A configuration, composed once a process: planning, checking and running ask for it."""
    return compose(list(overrides))


def merged(overrides: list[str]) -> list[str]:
    """Overrides with one for each key: the last that was said."""
    last = {text.lstrip("+").partition("=")[0]: text for text in overrides}
    return list(last.values())


def spoken(value: Any) -> str:
    """A value as an override writes it."""
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
        there = value if isinstance(value, dict) else vars(value) if is_dataclass(value) else {}
        if part not in there:
            raise ConfigError([f"enqueue: {key}: {OWN}: the base has no such option"])
        value = there[part]
    return value


def contains(distributions: dict[str, BaseDistribution], point: Point) -> bool:
    """Whether a point lies in the space; beta = 0 does not lie in a log-uniform range."""
    if distributions.keys() != point.keys():
        return False
    for key, one in distributions.items():
        value = point[key]
        if isinstance(one, CategoricalDistribution):
            if value not in one.choices:
                return False
        elif not one.low <= value <= one.high or math.isnan(value):  # type: ignore[attr-defined]
            return False
    return True
