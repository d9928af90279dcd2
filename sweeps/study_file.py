"""Reading a study: conf/study/NAME.yaml, overridden by the command line; all errors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from analysis.selection.declared import EACH
from analysis.suggest import nearest
from pipeline.config import Config, ConfigError, compose
from pipeline.config.groups import file_of, unknown
from pipeline.config.sweep import values_of
from pipeline.config.yaml_file import read_yaml
from pipeline.identity import same_experiment
from sweeps.study import Params, Study, merged
from sweeps.varied import first_values, sweeps_of, within
from trainers.data import has_validation

SAMPLERS = ("grid", "tpe", "gp", "random")
PRUNERS = ("none", "hyperband", "median")
# Options of the study on the command line; all others are overrides of the base.
OPTIONS = ("trials", "seeds", "sampler", "pruner")
RANGE = ("low", "high", "log")


def read_study(name: str) -> dict[str, Any]:
    """The values of conf/study/NAME.yaml.

    Raises:
        ConfigError: no such study.
    """
    if wrong := unknown("study", name):
        raise ConfigError([wrong])
    return read_yaml(file_of("study", name))


def study_of(name: str, given: dict[str, str], overrides: list[str]) -> Study:
    """The study of a file with options of the command line (`given`) and overrides of its base.

    Raises:
        ConfigError: all errors of the file, of the command line, and of every configuration that
            is known beforehand.
    """
    where = f"conf/study/{name}.yaml: "
    values, errors = _fitting(read_study(name), where)
    found, more = _fitting({key: _read(key, text) for key, text in given.items()}, "")
    values, errors = values | found, errors + more
    space = dict(values.get("space") or {})
    several, others, wrong_sweeps = sweeps_of(overrides, space)
    errors += wrong_sweeps
    if several:
        values["space"] = space | several
    added = {key: value for key, value in several.items() if key not in space}
    base = [text for text in values.get("base", []) if not _keys([text]) & added.keys()]
    values["base"] = merged([*base, *others])
    values["enqueue"] = [first_values(added) | entry for entry in values.get("enqueue", [])]
    values["seeds"] = tuple(values.get("seeds", [0]))
    values["enqueue"] = tuple(values.get("enqueue", []))
    study = Study(name=name, **values)
    errors += _study_errors(study, where, others)
    if errors:
        raise ConfigError(list(dict.fromkeys([*errors, *_errors_of(others)])))
    if wrong := _configuration_errors(study):
        raise ConfigError(list(dict.fromkeys(wrong.errors)), wrong.config)
    study = within(study, several)
    return study


def _errors_of(overrides: list[str]) -> list[str]:
    """The errors of overrides by themselves."""
    try:
        compose(overrides)
    except ConfigError as error:
        return error.errors
    return []


def entries() -> list[str]:
    """The entries that a file of conf/study may have."""
    return [field.name for field in fields(Study) if field.name != "name"]


def _read(key: str, text: str) -> Any:
    """trials=30 seeds=0,1,2 sampler=gp pruner=hyperband, as values; as text if not a number."""
    plain = text.strip("[]").replace(" ", "")
    if key == "trials" and re.fullmatch(r"\d+", plain):
        return int(plain)
    if key == "seeds" and re.fullmatch(r"\d+(,\d+)*", plain):
        return [int(part) for part in plain.split(",")]
    if key == "seeds" and isinstance(several := values_of(f"seed={text}"), list):
        return several
    return text


def _fitting(values: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """(valid entries, errors of the others)."""
    found, errors = dict[str, Any](), []
    for key, value in values.items():
        if key not in entries():
            errors.append(f"{where}{key}: no such entry{nearest(key, entries(), True)}")
            continue
        fits, form = _FORMS[key]
        if fits(value):
            found[key] = value
        else:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            errors.append(f"{where}{key}={shown}: {form}")
    return found, errors


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _seeds(value: Any) -> bool:
    plain = isinstance(value, list) and all(_whole(seed) and seed >= 0 for seed in value)
    return plain and 0 < len(set(value)) == len(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _claim(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("rung"), str):
        return False
    margin, control = value.get("margin", 0.5), value.get("control", EACH)
    number = isinstance(margin, int | float) and 0 < margin < 100
    named = isinstance(control, str) or (_texts(control) and bool(control))
    fits = number and named and _seeds(value.get("seeds", [0]))
    return fits and value.keys() <= {"rung", "control", "margin", "seeds"}


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "base": (_texts, "not a list of options such as cfg=L3"),
    "sampler": (_text, f"not one of {', '.join(SAMPLERS)}"),
    "pruner": (_text, f"not one of {', '.join(PRUNERS)}"),
    "trials": (lambda v: v is None or (_whole(v) and v > 0), "not a whole number >= 1"),
    "seeds": (_seeds, "not whole numbers, each once: seeds=0,1,2"),
    "space": (lambda v: isinstance(v, dict), "not options with their values"),
    "rows": (
        lambda v: isinstance(v, dict) and all(map(_texts, v.values())),
        "not names, each with a list of options",
    ),
    "claim": (
        _claim,
        "not {rung: L4}, with control: KD (or [CE, KD]), margin: 0.5 (points) and seeds: [0, 1, 2] "
        "as wanted",
    ),
    "enqueue": (
        lambda v: isinstance(v, list) and all(isinstance(one, dict) for one in v),
        "not a list of configurations, each {option: value}",
    ),
}


def _study_errors(study: Study, where: str, given: list[str]) -> list[str]:
    """Errors of a study before anything is composed. A named configuration may override the base of
    its file, but not the overrides of the command line (`given`)."""
    found = []
    for key, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        value = getattr(study, key)
        if value not in allowed:
            found.append(f"{key}={value}: unknown{nearest(value, list(allowed), True)}")
    if not study.space and not study.rows:
        found.append(f"{where}nothing varies: add space or rows")
    wrong = [
        f"{where}space: {key}: {why}"
        for key, value in (study.space or {}).items()
        if (why := _wrong(value, study.sampler == "grid")) is not None
    ]
    found += wrong
    if study.sampler == "grid" and not wrong and (study.trials or 0) > len(study.known_params):
        found.append(
            f"trials={study.trials}: the grid has {len(study.known_params)} configurations"
        )
    if study.sampler != "grid" and study.trials is None:
        found.append("trials: required, as in trials=30")
    varied = {*(study.space or {}), "seed"}
    of_rows = {key for row in (study.rows or {}).values() for key in _keys(row)}
    for key in sorted(_keys(study.base) & varied | _keys(given) & of_rows):
        instead = "leave it out"
        if key == "seed":
            instead = "seeds=0,1,2 sets them"
        elif key in (study.space or {}):
            instead = f"leave it out, or give several values, as in {key}=A,B"
        found.append(f"{key}: varied by study {study.name}: {instead}")
    return found


def _wrong(value: Any, grid: bool) -> str | None:
    """The error of the values of one option of a space, if any."""
    if isinstance(value, list):
        plain = all(one is None or isinstance(one, bool | int | float | str) for one in value)
        if not plain or not value:
            return "not a list of plain values (an entry of rows can set lists)"
        return None if len(set(value)) == len(value) else "a value is repeated"
    if not isinstance(value, dict) or {"low", "high"} - set(value) or set(value) - set(RANGE):
        return "a list of values, or {low: …, high: …, log: true}"
    if grid:
        return "a grid needs a list of values (or another sampler, as in sampler=tpe trials=30)"
    low, high = value["low"], value["high"]
    for end in ("low", "high"):
        if isinstance(value[end], str):
            return f"{end} {value[end]!r} is text, not a number: write it without quotes, as 1.0e-5"
    numbers = all(isinstance(one, int | float) and math.isfinite(one) for one in (low, high))
    if not numbers or not low < high:
        return f"low {low} is not below high {high}"
    return f"low {low}: a log range starts above 0" if value.get("log") and low <= 0 else None


def _keys(overrides: list[str]) -> set[str]:
    return {text.lstrip("+").partition("=")[0] for text in overrides}


def _configuration_errors(study: Study) -> ConfigError | None:
    """Errors of what the trials would run: known configurations, and the ends of every range."""
    found: list[str] = []
    try:
        if not has_validation(study.config.data):
            found.append("data.val_fraction=0: a study selects by validation images, never by test")
        known = [*study.known_params, *ends(study)]
    except ConfigError as error:
        return error
    partly: Config | None = None
    for params in known:
        try:
            study.at(params, study.seeds[0])
        except ConfigError as error:
            found += error.errors
            partly = partly or error.config
    return ConfigError(found, partly) if found else None


def idle_options(study: Study) -> list[str]:
    """Varied options of which several values give the same experiment, with all values of the other
    options. Not decided where several ranges are sampled: an option may matter within them."""
    if study.sampler != "grid" and len(study.distributions) > 1:
        return []
    known = study.known_params if study.sampler == "grid" else ends(study)
    configs = [study.at(params, study.seeds[0]) for params in known]
    keys = [same_experiment("distill", config) for config in configs]
    rungs = ", ".join(dict.fromkeys(config.rung for config in configs))
    found = []
    for option in study.distributions:
        experiments: dict[Any, list[str]] = {}  # of each value, in the order of the other options
        for params, key in zip(known, keys, strict=True):
            experiments.setdefault(params[option], []).append(key)
        ((_, alike),) = Counter(map(tuple, experiments.values())).most_common(1)
        if alike > 1:
            found.append(
                f"{option}: changes nothing in {rungs}: {alike} of its {len(experiments)} "
                "values are one experiment; choose a base that uses it, as in cfg=L3"
            )
    return found


def ends(study: Study) -> list[Params]:
    """Parameters at both ends of every range that is sampled, and at each choice."""
    if study.sampler == "grid":
        return []
    ends = {key: _ends_of(one) for key, one in study.distributions.items()}
    first = {key: values[0] for key, values in ends.items()}
    return [first | {key: value} for key, values in ends.items() for value in values]


def _ends_of(one: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(one, CategoricalDistribution):
        return one.choices
    return one.low, one.high  # type: ignore[attr-defined]
