"""The options of the evaluate verb."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

from pipeline.config import ConfigError, compose
from pipeline.evaluation.model import is_file, pixel_options
from trainers.data import DataConfig

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Request:
    """The run to evaluate, the split, and the names of the other options that were given."""

    run: str
    split: str
    keys: set[str] = field(default_factory=set)


def request(overrides: list[str]) -> tuple[Request, list[str]]:
    """run= and split= (default val) of the overrides, and the other overrides.

    A run brings its configuration: only the data set and runtime.* can be changed.

    Raises:
        ConfigError: all errors, including those in the other overrides.
    """
    own = {"run": "", "split": "val"}
    pairs = [(text, *text.lstrip("+").partition("=")[::2]) for text in overrides]
    own |= {key: os.path.expanduser(value) for _, key, value in pairs if key in own}
    rest = [text for text, key, _ in pairs if key not in own]
    keys = {key for _, key, _ in pairs} - own.keys()
    errors = []
    if not own["run"]:
        errors.append(
            "run: none given; as in run=KEY, run=NAME, run=MLFLOW_RUN_ID or run=FILE.safetensors"
        )
    if own["split"] not in SPLITS:
        errors.append(f"split={own['split']}: unknown (allowed: {', '.join(SPLITS)})")
    if "experiment" in keys:
        errors.append(
            "experiment: an evaluation goes to the experiment of its run; to another with "
            "runtime.experiment=NAME"
        )
        keys -= {"experiment"}
        rest = [text for text in rest if not text.startswith("experiment=")]
    if own["run"] and not is_file(own["run"]):
        known = {f"data.{f.name}" for f in fields(DataConfig)}
        free = {"bench", "data", *(f"data.{name}" for name in pixel_options())}
        allowed = ", ".join([*sorted(free), "runtime.*"])
        errors += [
            f"{key}: a run is evaluated in its own configuration (to be changed: {allowed})"
            for key in sorted(keys - free)
            if not key.startswith("runtime.") and not (key.startswith("data.") and key not in known)
        ]
    if errors:
        raise ConfigError(errors + _errors_of(rest))
    return Request(own["run"], own["split"], keys), rest


def _errors_of(overrides: list[str]) -> list[str]:
    try:
        compose(overrides)
    except ConfigError as error:
        return error.errors
    return []
