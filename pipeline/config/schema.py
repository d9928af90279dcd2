"""Configuration: Hydra composes YAML values, dataclasses check them.

All mistakes are found in one pass and told in one message, each with the nearest valid name.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pipeline.config.fields import build_dataclass, leaves, nearest
from pipeline.config.groups import CONF, GROUPS, data_of, method_of, options_of
from pipeline.config.validate import contradictions
from trainers.data import DataConfig
from trainers.data.class_overlap import class_lists
from trainers.data.views import Numerics
from trainers.distillation.state import BudgetConfig, StudentConfig
from trainers.errors import UserError
from trainers.finetune import TeacherConfig
from trainers.loop import OptimConfig
from trainers.mixing import MixConfig
from trainers.options import OptionInfo, option

BASE_TEACHERS = 2  # teachers that conf/config.yaml names
_TEACHER = re.compile(r"teacher\.\d+")  # a whole teacher: `teacher.1=null` takes it away


class ConfigError(UserError):
    """The user's mistakes, all of them."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        head = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the configuration:"
        super().__init__("\n".join([head, *(f"  - {mistake}" for mistake in mistakes)]))

    @classmethod
    def of(cls, error: ValueError) -> ConfigError:
        """What an analysis could not do with what was asked for; a store that does not answer is
        nobody's mistake and stands alone."""
        found = cls(str(error).split("\n"))
        if isinstance(error, ConnectionError):
            found.args = (str(error),)
        return found


@dataclass
class BenchConfig:
    """What depends on the problem beside data, networks and budget."""

    name: str = option("digits", "name of the bench", identity=False)
    enable_kd_after_syn_acc: float = option(
        0.65, "gate of the B-Step, read by method.enable_kd_after_syn_acc", low=0, high=1
    )
    teacher_weights: list[float] | None = option(
        None, "weights of the teachers' average, read by method.teacher_weights"
    )


@dataclass
class RuntimeConfig:
    """What must not change results, and is never part of a run's identity."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1 …")
    threads: int | None = option(None, "CPU threads (null: torch's choice)", low=1)
    store: str = option("store", "folder of commits, weights and view banks")
    experiment: str | None = option(
        None, "MLflow experiment (null: the launch's, else MLFLOW_EXPERIMENT_NAME, else asib)"
    )
    commit_every_s: float = option(5.0, "least seconds between two commits", low=0)
    heartbeat_s: float = option(3.0, "seconds between two signs of life of a lease", low=0.05)
    expiry_s: float = option(30.0, "silence after which a lease is taken over", low=0.2)
    sync_timeout_s: float = option(
        30.0, "at the end, wait this long for an absent tracking server", low=0
    )
    log_model: bool = option(True, "log the student as an MLflow model")
    retry_s: float = option(15.0, "seconds between two tries to reach the tracking server", low=0.1)
    device_budget: str | None = option(
        None,
        "most memory that training images may take on the device, such as 2GB; above it they "
        "stay in a mapped file of the store (null: half of the device's memory)",
    )


@dataclass
class Config:
    """A whole experiment: one teacher set, one method, one student, one seed."""

    cfg: str = option("L3", "rung of the ladder")
    seed: int = option(0, "seed of weights, order, crops and mixes", low=0)
    select: str = option(
        "best", "best: epoch of the best validation accuracy; last", choices=("best", "last")
    )
    overlap: int | None = option(
        None,
        "percent of the classes that all teachers are trained on; of the rest each has its "
        "own share (null: every teacher has all, which is 100)",
        low=0,
        high=100,
        identity=False,
    )
    overlap_seed: int = option(0, "seed of the shuffle that shares them out", low=0, identity=False)
    bench: BenchConfig = option(BenchConfig, "the problem")
    data: DataConfig = option(DataConfig, "images")
    teacher: dict[str, TeacherConfig] = option({}, "teachers, by number")
    student: StudentConfig = option(StudentConfig, "student")
    method: Any = option(dict, "method")
    mix: MixConfig = option(MixConfig, "mixing of the B-Step")
    optim: OptimConfig = option(OptimConfig, "the student's optimiser")
    budget: BudgetConfig = option(BudgetConfig, "epochs")
    numerics: Numerics = option(Numerics, "precision and memory format")
    runtime: RuntimeConfig = option(RuntimeConfig, "device, paths, cadence")

    def teachers(self) -> list[TeacherConfig]:
        """The teachers in order of their numbers, each with the classes that it is trained on
        (None where that is all of them)."""
        found = [self.teacher[name] for name in sorted(self.teacher, key=int)]
        lists = [teacher.classes for teacher in found]
        if found and self.overlap is not None:
            lists = [*class_lists(self.data.classes, self.overlap, len(found), self.overlap_seed)]
        some = [sorted(own) if own and len(own) < self.data.classes else None for own in lists]
        return [replace(t, classes=own) for t, own in zip(found, some, strict=True)]

    @property
    def rung(self) -> str:
        """What a run is called in tables: the rung for ASIB's ladder, else the method."""
        return self.cfg if self.method.name == "asib" else self.method.name


def compose(overrides: list[str]) -> Config:
    """The configuration of Hydra overrides such as `cfg=L3 bench=digits method.ib_beta=1e-3`.

    Raises:
        ConfigError: unknown keys and names, wrong types, values out of range, contradictions;
            all of them, with the nearest valid names.
    """
    mistakes: list[str] = []
    choices, values = _sort_overrides(overrides, mistakes)
    _name_the_rung(choices, values, mistakes)
    container = _container(choices, values)
    config = build_dataclass(Config, container, "", mistakes, _known_keys())
    if isinstance(config.method, dict):
        mistakes += [] if mistakes else ["method: nothing chosen"]
    else:
        mistakes += contradictions(config)
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    own = data_of(config.bench.name)
    if own is not None and config.data.name != own:  # a bench of its own, in names and tables
        config.bench.name += f"-{config.data.name}"
    return config


# Overrides ----------------------------------------------------------------------------------


def _sort_overrides(
    overrides: list[str], mistakes: list[str]
) -> tuple[list[str], list[tuple[str, Any]]]:
    """(group choices, values by dotted key); what is neither is a mistake."""
    choices: list[str] = []
    values: list[tuple[str, Any]] = []
    for text in overrides:
        key, equals, value = text.lstrip("+").partition("=")
        if not equals or not key:
            mistakes.append(f"{text!r} is not of the form key=value")
        elif key.split("@")[0] in GROUPS and "." not in key.split("@")[0]:
            _check_choice(key, value, choices, mistakes)
        elif _TEACHER.fullmatch(key):
            if value != "null":
                mistakes.append(f"{key}={value}: null (no such teacher), or teacher@{key}=NAME")
            values.append((key, None))
        elif _fact_of(key) is None:
            mistakes.append(f"{key}: no such option{nearest(key, _known_keys())}")
        else:
            _parse_value(key, value, values, mistakes)
    return choices, values


def _name_the_rung(choices: list[str], values: list[tuple[str, Any]], mistakes: list[str]) -> None:
    """A method that is chosen by its own name is called by its rung, or by its name: not by the
    rung that conf/config.yaml begins with."""
    typed = dict(choice.split("=", 1) for choice in choices)
    method, cfg = typed.get("method"), typed.get("cfg")
    if method is None:
        return
    if cfg is not None:
        if method_of(cfg) != method:
            mistakes.append(f"cfg={cfg} is method={method_of(cfg)}, not {method}: type one of them")
        return
    rung = next(
        (name for name in sorted(options_of("cfg"), key=len) if method_of(name) == method), None
    )
    if rung is None:
        values.append(("cfg", method))
    else:
        choices.append(f"cfg={rung}")


def _check_choice(key: str, value: str, choices: list[str], mistakes: list[str]) -> None:
    group, at, package = key.partition("@")
    allowed = options_of(group)
    if value not in allowed:
        mistakes.append(f"{key}={value}: unknown{nearest(value, allowed, show_all=True)}")
    elif group == "teacher" and not (at and package.removeprefix("teacher.").isdigit()):
        mistakes.append(f"{key}={value}: say which teacher, as in teacher@teacher.0={value}")
    elif group == "teacher" and int(package.removeprefix("teacher.")) >= BASE_TEACHERS:
        choices.append(f"+{key}={value}")  # a further one, to those of conf/config.yaml
    else:
        choices.append(f"{key}={value}")


def _parse_value(key: str, value: str, values: list[tuple[str, Any]], mistakes: list[str]) -> None:
    """Text stays text where the option is text (a path may hold anything); the rest is read by
    Hydra's grammar."""
    annotation = _annotation_of(key)
    text = typing.get_origin(annotation) is not list and str in typing.get_args(annotation)
    if annotation is str or (text and value != "null"):
        values.append((key, value.strip("'\"") if value[:1] in ("'", '"') else value))
        return
    try:
        parsed = OverridesParser.create().parse_override(f"{key}={value}")
        if parsed.is_sweep_override():
            raise ValueError("several values need -m (multirun)")
        values.append((key, parsed.value()))
    except (HydraException, ValueError) as error:
        mistakes.append(f"{key}={value}: cannot be read: {str(error).splitlines()[0]}")


def _container(choices: list[str], values: list[tuple[str, Any]]) -> dict[str, Any]:
    """Compose the chosen groups, then set the values."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose("config", overrides=choices)
    OmegaConf.set_struct(config, False)
    for key, value in values:
        if not _TEACHER.fullmatch(key):
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    for key, _ in values:
        if _TEACHER.fullmatch(key):
            config.teacher.pop(key.partition(".")[2], None)
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


@cache
def _known() -> dict[str, tuple[Any, OptionInfo]]:
    return {key: (hint, fact) for key, hint, fact in leaves(Config)}


def _known_keys() -> list[str]:
    return list(_known()) + list(GROUPS)


def _canonical_key(key: str) -> str:
    parts = key.split(".")
    if len(parts) > 1 and parts[0] == "teacher" and parts[1].isdigit():
        parts[1] = "0"
    return ".".join(parts)


def _fact_of(key: str) -> OptionInfo | None:
    entry = _known().get(_canonical_key(key))
    return entry[1] if entry else None


def _annotation_of(key: str) -> Any:
    return _known()[_canonical_key(key)][0]
