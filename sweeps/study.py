"""A study as a value: what is varied, over which base, by which sampler, at which seeds.

The values stand in conf/study/NAME.yaml; what is typed beside them wins.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import typing
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import Config, ConfigError, compose
from pipeline.fields import nearest
from pipeline.groups import CONF, options_of
from pipeline.identity import digest_of, identity

FOLDER = CONF / "study"
SAMPLERS = ("grid", "tpe", "gp", "random")
PRUNERS = ("none", "hyperband", "median")
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
        return compose([*self.base, f"seed={self.seeds[0]}"])

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

    def overrides(self, point: Point, seed: int) -> list[str]:
        """The command line of one run of a trial."""
        own = [text for key, value in point.items() for text in self._spoken(key, value)]
        return merged([*self.base, *own, f"seed={seed}"])

    def _spoken(self, key: str, value: Any) -> list[str]:
        if key == ROW and self.rows:
            return list(self.rows[value])
        return [f"{key}={spoken(value)}"]


def read_study(name: str) -> dict[str, Any]:
    """The values of conf/study/NAME.yaml.

    Raises:
        ConfigError: no such study.
    """
    if name not in options_of("study"):
        hint = nearest(name, options_of("study"), show_all=True)
        raise ConfigError([f"study={name}: unknown{hint}"])
    found = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    return {str(key): value for key, value in typing.cast(dict[str, Any], found).items()}


def study_of(name: str, typed: dict[str, str], overrides: list[str]) -> Study:
    """The study of a file, with what was typed: options of the study, and overrides of its base.

    Raises:
        ConfigError: all mistakes in the file, in what was typed, and in every configuration that
            is known beforehand.
    """
    values = read_study(name)
    mistakes = [
        f"conf/study/{name}.yaml: {key}: no such entry{nearest(key, _entries(), True)}"
        for key in values
        if key not in _entries()
    ]
    values = {key: value for key, value in values.items() if key in _entries()}
    values |= _typed(typed, mistakes)
    values["base"] = merged([*values.get("base", []), *overrides])
    values["seeds"] = tuple(values.get("seeds", [0]))
    values["enqueue"] = tuple(values.get("enqueue", []))
    study = Study(name=name, **values)
    mistakes += _mistakes(study, overrides)
    if not mistakes:
        mistakes += _of_configurations(study)
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return study


def merged(overrides: list[str]) -> list[str]:
    """Overrides with one for each key: the last that was said."""
    last = {text.lstrip("+").partition("=")[0]: text for text in overrides}
    return list(last.values())


def spoken(value: Any) -> str:
    """A value as an override writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _entries() -> list[str]:
    return [field.name for field in fields(Study) if field.name != "name"]


def _typed(typed: dict[str, str], mistakes: list[str]) -> dict[str, Any]:
    """trials=30 seeds=0,1,2 sampler=gp pruner=hyperband, as values."""
    found: dict[str, Any] = {}
    for key, text in typed.items():
        if key == "trials" and re.fullmatch(r"[1-9]\d*", text):
            found[key] = int(text)
        elif key == "seeds" and re.fullmatch(r"\d+(,\d+)*", text.strip("[]").replace(" ", "")):
            found[key] = [int(part) for part in text.strip("[]").split(",")]
        elif key in ("sampler", "pruner"):
            found[key] = text
        else:
            form = {"trials": "a whole number >= 1", "seeds": "whole numbers: seeds=0,1,2"}[key]
            mistakes.append(f"{key}={text}: not {form}")
    return found


def _mistakes(study: Study, overrides: list[str]) -> list[str]:
    """What is wrong with a study before anything is composed."""
    found = []
    for key, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        value = getattr(study, key)
        if value not in allowed:
            found.append(f"{key}={value}: unknown{nearest(value, list(allowed), True)}")
    if not study.space and not study.rows:
        found.append(f"conf/study/{study.name}.yaml: nothing is varied: give space or rows")
    for key, value in (study.space or {}).items():
        if isinstance(value, list) and value:
            continue
        if not isinstance(value, dict) or {"low", "high"} - set(value):
            found.append(f"space: {key}: a list of values, or {{low: …, high: …, log: true}}")
        elif study.sampler == "grid":
            found.append(f"space: {key}: a grid needs a list of values (or another sampler)")
    if study.sampler != "grid" and study.trials is None:
        found.append("trials: say how many, as in trials=30")
    given = {text.lstrip("+").partition("=")[0] for text in overrides}
    varied = {*(study.space or {}), *_keys_of(study.rows or {}), "seed"}
    for key in sorted(given & varied):
        instead = "seeds=0,1,2 sets them" if key == "seed" else "leave it out"
        found.append(f"{key}: varied by study {study.name}: {instead}")
    return found


def _keys_of(rows: dict[str, list[str]]) -> set[str]:
    return {text.partition("=")[0] for row in rows.values() for text in row}


def _of_configurations(study: Study) -> list[str]:
    """Mistakes in what the trials would run: every known point, and the ends of every range."""
    found: list[str] = []
    try:
        if study.config.data.val_fraction == 0:
            found.append("data.val_fraction=0: a study needs validation images, test is no goal")
        points = [*study.points, *_ends(study)]
    except ConfigError as error:
        return error.mistakes
    for point in points:
        try:
            one = compose(study.overrides(point, study.seeds[0]))
            if one.budget.matched_to is not None:
                found.append(f"cfg={one.cfg}: its budget follows from other runs: use distill -m")
        except ConfigError as error:
            found += error.mistakes
    return found


def _ends(study: Study) -> list[Point]:
    if study.sampler == "grid":
        return []
    return [{key: _end(one, k) for key, one in study.distributions.items()} for k in (0, 1)]


def _end(distribution: BaseDistribution, which: int) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[-which]
    return (distribution.low, distribution.high)[which]  # type: ignore[attr-defined]


def _distribution(value: Any) -> BaseDistribution:
    if isinstance(value, list):
        return CategoricalDistribution(value)
    low, high, log = value["low"], value["high"], bool(value.get("log", False))
    whole = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log)


def _own(config: Config, key: str) -> Any:
    """The value that a configuration has at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
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
