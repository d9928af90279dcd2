"""Configuration: Hydra composes YAML values, dataclasses check them.

All mistakes are found in one pass and told in one message, each with the nearest valid name.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from trainers import models
from trainers.data import DataConfig
from trainers.finetune import TeacherConfig
from trainers.loop import OptimConfig
from trainers.methods import METHODS
from trainers.mixing import MixConfig
from trainers.options import Fact, bytes_of, option
from trainers.overlap import class_lists
from trainers.run import BudgetConfig, StudentConfig
from trainers.views import Numerics

CONF = Path(__file__).resolve().parent.parent / "conf"
BASE_TEACHERS = 2  # teachers that conf/config.yaml names
GROUPS = ("bench", "budget", "cfg", "data", "method", "numerics", "optim", "student", "teacher")


class ConfigError(Exception):
    """The user's mistakes, all of them."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        head = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in the configuration:"
        super().__init__("\n".join([head, *(f"  - {mistake}" for mistake in mistakes)]))


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
        None, "percent of the classes that all teachers are trained on; of the rest each has its "
        "own share (null: every teacher has all, which is 100)", low=0, high=100, identity=False,
    )  # fmt: skip
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
    config = build_dataclass(Config, container, "", mistakes)
    if isinstance(config.method, dict):
        mistakes += [] if mistakes else ["method: nothing chosen"]
    else:
        mistakes += _contradictions(config)
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


@cache
def method_of(cfg: str) -> str:
    """The method that a rung of conf/cfg chooses."""
    defaults = OmegaConf.load(CONF / "cfg" / f"{cfg}.yaml").defaults
    return str(next(part["override /method"] for part in defaults if "override /method" in part))


@cache
def data_of(bench: str) -> str | None:
    """The data set that a bench of conf/bench chooses; None where there is no such bench."""
    path = CONF / "bench" / f"{bench}.yaml"
    if not path.is_file():
        return None
    parts = OmegaConf.load(path).defaults
    return next((str(part["override /data"]) for part in parts if "override /data" in part), None)


def options_of(group: str) -> list[str]:
    """The names that a group of conf/ offers."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


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
    if annotation is str or (str in typing.get_args(annotation) and value != "null"):
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
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


# Dataclasses --------------------------------------------------------------------------------


def build_dataclass(cls: type, container: Any, prefix: str, mistakes: list[str]) -> Any:
    """An instance of `cls` from plain values; every misfit is added to `mistakes`."""
    if not isinstance(container, dict):
        mistakes.append(f"{prefix.rstrip('.')}={container!r}: a group of options, not a value")
        return cls()
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for name in container:
        if name not in known:
            mistakes.append(
                f"{prefix}{name}: no such option{nearest(prefix + name, _known_keys())}"
            )
    found = {}
    for name, field in known.items():
        if name not in container:
            continue
        key, value = prefix + name, container[name]
        if key == "method":
            found[name] = _build_method(value, mistakes)
        elif key == "teacher":
            found[name] = {
                number: build_dataclass(TeacherConfig, one, f"teacher.{number}.", mistakes)
                for number, one in sorted(value.items())
            }
        elif is_dataclass(hints[name]):
            found[name] = build_dataclass(
                typing.cast(type, hints[name]), value, f"{key}.", mistakes
            )
        else:
            fits, value = _cast(value, hints[name])
            wrong = (
                _misfits(key, value, field.metadata["fact"])
                if fits
                else [f"{key}={value}: not {type_name(hints[name])}"]
            )
            mistakes += wrong
            if not wrong:  # else the default stands in, so that the other checks can go on
                found[name] = value
    return cls(**found)


def _build_method(value: Any, mistakes: list[str]) -> Any:
    name = value.get("name") if isinstance(value, dict) else value
    if name not in METHODS:
        mistakes.append(f"method.name={name}: unknown{nearest(str(name), list(METHODS), True)}")
        return value
    return build_dataclass(METHODS[name].config_type, value, "method.", mistakes)


def _misfits(key: str, value: Any, fact: Fact) -> list[str]:
    """What is wrong with a value of the right type: range, choices."""
    mistakes = []
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        low, high = fact.low, fact.high
        # `not (… <= …)` and not `>`, so that a NaN is caught.
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            hint = " (a fraction: 65 % is 0.65)" if high == 1 and 1 < number <= 100 else ""
            mistakes.append(f"{key}={number}: out of range {range_name(low, high)}{hint}")
        elif number != number or number in (float("inf"), float("-inf")):
            mistakes.append(f"{key}={number}: not a finite number")
    if fact.choices is not None and value is not None:
        allowed, free = fact.choices(), fact.free
        if value not in allowed and not (free and models.exists(str(value))):
            also = [f"{free}<name>"] if free else []
            mistakes.append(f"{key}={value}: unknown{nearest(value, [*allowed, *also], True)}")
    return mistakes


def _cast(value: Any, annotation: Any) -> tuple[bool, Any]:
    """(does it fit, the value as that type). Whole numbers fit where a number is asked for."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        tried = [_cast(value, option) for option in typing.get_args(annotation)]
        return next(((ok, v) for ok, v in tried if ok), (False, value))
    if annotation is type(None):
        return value is None, value
    if typing.get_origin(annotation) is list:
        if not isinstance(value, list):
            return False, value
        parts = [_cast(v, typing.get_args(annotation)[0]) for v in value]
        return all(ok for ok, _ in parts), [v for _, v in parts]
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if annotation is str and isinstance(value, int | float) and not isinstance(value, bool):
        return True, str(value)
    return type(value) is annotation, value


def type_name(annotation: Any) -> str:
    """A type in words that a user knows."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) is list:
        return f"a list, each {type_name(typing.get_args(annotation)[0])}"
    parts = [a for a in typing.get_args(annotation) if a is not type(None)]
    return " or ".join([type_name(a) for a in parts] + ["null"])


def range_name(low: float | None, high: float | None) -> str:
    """`>= 1`, `<= 5` or `0 … 1`."""
    if low is None or high is None:
        return f">= {low:g}" if low is not None else f"<= {high:g}"
    return f"{low:g} … {high:g}"


# Names --------------------------------------------------------------------------------------


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Fact]]:
    """(dotted key, type, fact) of every option below a dataclass; teachers as `teacher.0.…`,
    methods one after the other."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        key, hint = prefix + field.name, hints[field.name]
        if key == "method":
            for method in METHODS.values():
                yield from leaves(method.config_type, "method.")
        elif key == "teacher":
            yield from leaves(TeacherConfig, "teacher.0.")
        elif is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{key}.")
        else:
            yield key, hint, field.metadata["fact"]


@cache
def _known() -> dict[str, tuple[Any, Fact]]:
    return {key: (hint, fact) for key, hint, fact in leaves(Config)}


def _known_keys() -> list[str]:
    return list(_known()) + list(GROUPS)


def _canonical_key(key: str) -> str:
    parts = key.split(".")
    if len(parts) > 1 and parts[0] == "teacher" and parts[1].isdigit():
        parts[1] = "0"
    return ".".join(parts)


def _fact_of(key: str) -> Fact | None:
    entry = _known().get(_canonical_key(key))
    return entry[1] if entry else None


def _annotation_of(key: str) -> Any:
    return _known()[_canonical_key(key)][0]


def nearest(word: Any, names: list[str], show_all: bool = False) -> str:
    """`; did you mean …?` and, for short lists, what is allowed."""
    last = {name.rsplit(".", 1)[-1]: name for name in names}
    word = str(word)
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.6) or [
        last[name] for name in difflib.get_close_matches(word.rsplit(".", 1)[-1], last, n=2)
    ]
    guess = f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
    return guess + (f" (allowed: {', '.join(names)})" if show_all else "")


# Contradictions -----------------------------------------------------------------------------


def _contradictions(config: Config) -> list[str]:
    """What cannot be together although each value is fine."""
    found, data, method = [], config.data, config.method
    taught = method.reads_teachers()
    found += method.mistakes(config.budget.adapt_epochs, _student_width(config))
    for name in ("mean", "std"):
        if len(getattr(data, name)) != data.channels:
            found.append(f"data.{name}: {data.channels} values needed, one a channel")
    if any(value <= 0 for value in data.std if isinstance(value, float)):
        found.append("data.std: values above 0")
    if data.val_fraction == 0 and config.select == "best":
        found.append("data.val_fraction=0 leaves nothing to select by: set select=last")
    if data.val_fraction == 0 and method.uses_gate():
        found.append("data.val_fraction=0: the gate reads synergy accuracy on validation images")
    runtime, stages = config.runtime, method.stage_count()
    if runtime.expiry_s <= 2 * runtime.heartbeat_s:
        found.append(
            f"runtime.expiry_s={runtime.expiry_s:g}: more than two heartbeats needed "
            f"(runtime.heartbeat_s={runtime.heartbeat_s:g})"
        )
    if config.budget.student_epochs < stages:
        found.append(
            f"budget.student_epochs={config.budget.student_epochs}: fewer than the method's "
            f"{stages} stages"
        )
    if data.crop_pad >= data.image_size:
        found.append(f"data.crop_pad={data.crop_pad}: less than data.image_size needed")
    found += _too_deep(config)
    rung, rungs = config.budget.matched_to, [r for r in options_of("cfg") if r != "CE_matched"]
    if rung is not None and rung not in rungs:
        found.append(f"budget.matched_to={rung}: unknown{nearest(rung, rungs, show_all=True)}")
    if rung is not None and taught:
        found.append(f"budget.matched_to={rung} is for a control without teachers: cfg=CE_matched")
    if taught and not config.teacher:
        found.append("no teacher: add one with teacher@teacher.0=NAME")
    if config.teacher and sorted(map(int, config.teacher)) != list(range(len(config.teacher))):
        found.append(
            f"teacher: numbers {', '.join(config.teacher)}, not 0 … {len(config.teacher) - 1}"
        )
    weights = getattr(method, "teacher_weights", None)
    asked = [
        (
            "teacher_index",
            [method.teacher_index] if getattr(method, "kd_target", "") == "teacher" else [],
        ),
        (
            "synergy_eval_teacher_indices",
            getattr(method, "synergy_eval_teacher_indices", None) or [],
        ),
        ("teacher", method.teacher_numbers()),
    ]
    for name, numbers in asked:
        if taught and numbers and max(numbers) >= len(config.teacher):
            found.append(f"method.{name}: teacher {max(numbers)} of {len(config.teacher)}, from 0")
    if taught and weights is not None and not sum(weights) > 0:
        found.append(f"method.teacher_weights={weights}: their sum must be above 0")
    if taught and weights is not None and len(weights) != len(config.teacher):
        found.append(f"method.teacher_weights: {len(weights)} for {len(config.teacher)} teachers")
    if config.runtime.device_budget is not None:
        try:
            bytes_of(config.runtime.device_budget)
        except ValueError as error:
            found.append(f"runtime.device_budget={config.runtime.device_budget}: {error}")
    for number, teacher in config.teacher.items():
        if teacher.ckpt and not Path(teacher.ckpt).is_file():
            found.append(f"teacher.{number}.ckpt={teacher.ckpt}: no such file")
    found += _classes_that_cannot_be(config)
    nets = {"student": config.student} | {f"teacher.{k}": t for k, t in config.teacher.items()}
    for key, net in nets.items():
        wrong = models.misfit(net.model, data.image_size, data.channels, net.pretrained)
        found += [f"{key}.model={net.model}: {wrong}"] if wrong else []
    return found


def _classes_that_cannot_be(config: Config) -> list[str]:
    """What is wrong with the classes that teachers are to be trained on."""
    found, total = [], config.data.classes
    specialised = config.overlap not in (None, 100)
    if specialised and len(config.teacher) < 2:
        found.append(f"overlap={config.overlap}: at least two teachers are needed")
    elif specialised and min(len(t.classes or range(total)) for t in config.teachers()) < 2:
        found.append(
            f"overlap={config.overlap} leaves a teacher fewer than 2 of {total} classes: type a "
            "larger overlap, or use fewer teachers"
        )
    for number, teacher in config.teacher.items():
        key, own = f"teacher.{number}.classes", teacher.classes
        if teacher.ckpt and (specialised or own is not None):
            asked = f"overlap={config.overlap}" if specialised else key
            found.append(f"{asked}: teacher.{number}.ckpt is used as it is, not trained on classes")
        if own is None:
            continue
        if config.overlap is not None:
            found.append(f"{key}: overlap={config.overlap} sets it; type one of the two")
        if len(set(own)) != len(own) or len(own) < 2 or max(own) >= total:
            found.append(f"{key}={own}: at least 2 different classes of 0 … {total - 1} needed")
    return found


def _too_deep(config: Config) -> list[str]:
    """Levels of freezing that ask for more blocks than a network has."""
    found, method = [], config.method
    networks = [("method.student_levels", config.student.model)]
    networks += [("method.teacher_levels", teacher.model) for teacher in config.teachers()]
    for key, model in networks:
        levels, blocks = getattr(method, key.partition(".")[2], []), models.known_blocks(model)
        if blocks is not None and levels and max(levels) > blocks:
            found.append(f"{key}={max(levels)}: {model} has {blocks} blocks and a head")
    return found


def _student_width(config: Config) -> int | None:
    """Pooled width of the student, where it can be known without building a large net."""
    return models.known_width(config.student.model)
