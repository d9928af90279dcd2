"""Run identity: the hash that decides whether two runs are the same experiment.

A stage receives a dataclass with exactly what can change its result; its key is the hash of
that, of the data's digest, of its teachers' keys and of the version of the numerics. What
cannot change a result of *this* configuration (an option's `when`) is left out, so that two
configurations that are the same experiment have the same key. The git revision is a tag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config.extensions import sources
from trainers import models
from trainers.bank_codes import BankConfig
from trainers.data import DATASETS, DataConfig, DataMissing, Splits, load
from trainers.distill import DISTILL_VERSION
from trainers.distillation.config import DistillConfig
from trainers.finetune import FINETUNE_VERSION, FinetuneConfig
from trainers.methods import METHODS
from trainers.models.registry import ARCHITECTURES, Architecture
from trainers.options import default_of
from trainers.schedules import even_split

KEY_LENGTH = 12
CONTROL = "CE"  # the rung without teachers


def run_key(stage: str, config: Config, *, teacher: int = 0) -> str:
    """The key of a stage ("distill", or "finetune" of teacher number `teacher`).

    Reads the data set (its digest is part of the key).

    Raises:
        ValueError: unknown stage.
        DataMissing: its files do not exist.
        DataDamaged: its files do not hold what they should.
    """
    return key_of(identity(stage, config, teacher=teacher))


def key_of(found: dict[str, Any]) -> str:
    """The key of a stage of this identity."""
    return digest_of(found)[:KEY_LENGTH]


def same_experiment(stage: str, config: Config) -> str:
    """A digest that two configurations share where they are the same experiment, from the options
    alone: neither images nor files are read, so it also works where the data set is absent."""
    return digest_of(identity(stage, config, options_only=True))


def identity(
    stage: str, config: Config, *, teacher: int = 0, options_only: bool = False
) -> dict[str, Any]:
    """What the key of a stage is the hash of, as plain values. With `options_only` nothing is
    read: the options of the data set replace its digest, a teacher's path its file's digest."""

    def digest(data: DataConfig) -> str:
        return digest_of(vars(data)) if options_only else splits(data).digest

    def unlabelled(data: DataConfig) -> dict[str, str]:
        found = None if options_only else splits(data).unlabelled
        return {"unlabelled": found.digest} if found is not None else {}

    if stage == "finetune":
        spec = finetune_config(config, teacher)
        path = spec.teacher.ckpt
        source: dict[str, Any] = {"version": FINETUNE_VERSION}
        if path:
            source = {"file": path if options_only else file_digest(path)}
        outside = _outside(ARCHITECTURES.get(spec.teacher.model), DATASETS.get(spec.data.name))
        kept = {"config": canonical(spec), "data": digest(spec.data)}
        return {"stage": "finetune", **source, **kept} | outside
    if stage == "distill":
        keys = [
            key_of(identity("finetune", config, teacher=k, options_only=options_only))
            for k in teacher_numbers(config)
        ]
        if (own := own_teacher(config)) is not None:
            keys.append(key_of(identity("distill", own, options_only=options_only)))
        data = distill_config(config).data
        return {
            "stage": "distill",
            "version": DISTILL_VERSION,
            "config": _canonical_distill(config),
            "data": digest(data),
            **unlabelled(data),
            "teachers": keys,
            **_corrected(config),
        } | _outside(
            METHODS[config.method.name],
            ARCHITECTURES.get(config.student.model),
            DATASETS.get(config.data.name),
        )
    raise ValueError(f"unknown stage {stage!r} (finetune or distill)")


def _outside(*parts: Any) -> dict[str, Any]:
    """The sources of what comes from outside the project; nothing where all is the project's."""
    made = [part.make if isinstance(part, Architecture) else part for part in parts if part]
    found = sources(*made)
    return {"extensions": found} if found else {}


def absent_data(config: Config) -> str:
    """Why the data set of a configuration cannot be read here, in one line; empty: it can.

    Without it no key of a stage is known.
    """
    try:
        splits(config.data)
    except DataMissing as error:
        return " ".join(line.strip() for line in str(error).splitlines()[:2])
    return ""


def recipe_key(found: dict[str, Any]) -> str:
    """A key that repetitions with other seeds share: which runs of a table are one row."""
    config = {k: v for k, v in found["config"].items() if k != "seed"}
    return digest_of(found | {"config": config})[:KEY_LENGTH]


def recipe_of(config: Config) -> str:
    """The recipe key of a student. One that teaches it is known by its own recipe: it has another
    key at every seed."""
    found, own = identity("distill", config), own_teacher(config)
    return recipe_key(found | ({} if own is None else {"teachers": [recipe_of(own)]}))


def setting_key(found: dict[str, Any]) -> str:
    """A key that all methods of one problem share: which runs may be compared at all. Of the
    optimiser it has the batch alone: its other numbers may be tuned for each method. What banks
    keep of the teachers is a part of the method."""
    own = ("seed", "method", "bank")
    config = {k: v for k, v in found["config"].items() if k not in own}
    kept = {"budget": "student_epochs", "optim": "batch"}
    parts = {
        part: {k: v for k, v in config.get(part, {}).items() if k == name}
        for part, name in kept.items()
    }
    setting = {"config": config | parts, "data": found["data"]}
    return digest_of(setting)[:KEY_LENGTH]


def with_few_labels(config: Config) -> Config:
    """The configuration whose students one with `data.every_label` is the ceiling of: both are of
    one setting."""
    return replace(config, data=replace(config.data, every_label=False))


def of_teachers(config: Config) -> Config:
    """The configuration with the data that its teachers are trained on: images with a label. No
    validation image of the students is among them: the subset is drawn after the split."""
    data = config.data
    limit = data.train_limit if data.teacher_limit is None else data.teacher_limit
    if (limit, 0) == (data.train_limit, data.unlabelled):
        return config
    own = replace(data, train_limit=limit, teacher_limit=None, unlabelled=0, every_label=False)
    return replace(config, data=own)


def finetune_config(config: Config, teacher: int) -> FinetuneConfig:
    """The fine-tuning stage's part of a configuration."""
    data = of_teachers(config).data
    return FinetuneConfig(config.teachers()[teacher], data, config.numerics, config.select)


def distill_config(config: Config) -> DistillConfig:
    """The distillation stage's part of a configuration. A student without teachers learns nothing
    from unlabelled images; they only count for the steps of an epoch that are not given."""
    budget, data, optim = config.budget, config.data, config.optim
    taught = config.method.is_taught()
    if not taught and optim.steps_per_epoch is not None and not data.every_label:
        data = replace(data, unlabelled=0)
    if data.unlabelled == 0 or not taught:
        optim = replace(optim, unlabelled_share=default_of(type(optim), "unlabelled_share"))
    if not config.method.uses_gate():  # no A-Step: its budget changes nothing
        budget = replace(budget, adapt_epochs=0)
    stages = config.method.stage_count()
    if budget.student_epochs_per_stage == even_split(budget.student_epochs, stages):
        budget = replace(budget, student_epochs_per_stage=None)
    return DistillConfig(
        config.student,
        config.method,
        data,
        config.mix,
        optim,
        budget,
        config.numerics,
        config.select,
        config.seed,
        config.bank if taught and config.data.views else BankConfig(),
    )


def own_teacher(config: Config) -> Config | None:
    """The configuration of the student that teaches another one of its network and seed
    (self-training); None: the teachers are the bench's."""
    method = config.method.own_teacher()
    return None if method is None else replace(config, cfg=CONTROL, method=method)


def teacher_numbers(config: Config) -> range:
    """The numbers of the bench's teachers that the method reads: all of them or none."""
    return range(len(config.teacher) if config.method.reads_teachers() else 0)


def canonical(value: Any) -> Any:
    """Plain values of a dataclass, without what cannot change the result."""
    if not is_dataclass(value):
        return value
    kept = {}
    for field in fields(value):
        info = field.metadata.get("info")
        if info is not None and (not info.identity or (info.when and not info.when(value))):
            continue
        own = getattr(value, field.name)
        if info is not None and info.added and own == default_of(type(value), field.name):
            continue
        kept[field.name] = canonical(own)
    return kept


# Options that choose the images and labels, whose digest is in the key in their place.
_OF_IMAGES = {
    f"data.{name}"
    for name in ("name", "image_size", "channels", "val_fraction", "train_limit", "val_limit")
}
_OF_OTHERS = {"data.teacher_limit", "data.unlabelled"}  # the same, where there are such images


def key_options(stage: str, config: Config) -> set[str]:
    """The dotted options that the key of a stage depends on in this configuration; of finetune,
    those of all teachers."""
    found = set[str]()
    if stage == "distill":
        found |= set(_counting(distill_config(config), ""))
        found -= {f"method.{name}" for name in config.method.without_effect()}
        if not config.method.is_taught() or not config.data.views:
            found -= set(_counting(config.bank, "bank."))
        found |= _OF_IMAGES
        found |= _OF_OTHERS if config.method.is_taught() else set()
    numbers = range(len(config.teacher)) if stage == "finetune" else teacher_numbers(config)
    for number in numbers:
        spec = finetune_config(config, number)
        found |= set(_counting(spec.teacher, f"teacher.{number}."))
        found |= set(_counting(spec.data, "data.")) | set(_counting(spec.numerics, "numerics."))
        found |= {"data.teacher_limit"}
        found |= {"select", *_OF_IMAGES} | (
            {"overlap", "overlap_seed"} if config.specialised else set()
        )
    return found


def _counting(value: Any, prefix: str) -> Iterator[str]:
    """The options below a dataclass that can change a result of its configuration."""
    for field in fields(value):
        info, own = field.metadata.get("info"), getattr(value, field.name)
        if info is not None and (not info.identity or (info.when and not info.when(value))):
            continue
        if is_dataclass(own):
            yield from _counting(own, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _canonical_distill(config: Config) -> dict[str, Any]:
    """Plain values of a distillation, the same for all spellings of one experiment."""
    found, width = canonical(distill_config(config)), models.known_width(config.student.model)
    found["method"] = config.method.in_key(found["method"], width, len(config.teacher))
    return found


def _corrected(config: Config) -> dict[str, list[str]]:
    mixed = config.mix.mixup_alpha > 0 or config.mix.cutmix_alpha > 0
    found = config.method.corrected(fresh=config.data.views == 0, mixed=mixed)
    return {"corrected": found} if found else {}


def digest_of(value: Any) -> str:
    """sha256 of canonical JSON: sorted keys, no blanks, floats as Python writes them."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_read: dict[str, Splits] = {}  # data sets of this process, by their configuration


def splits(config: DataConfig) -> Splits:
    """The data set of a configuration, read once a process."""
    name = json.dumps(vars(config), sort_keys=True)
    if name not in _read:
        _read[name] = load(config)
    return _read[name]


def hold(config: DataConfig, data: Splits) -> None:
    """From now on `splits` gives `data`: the same bits held another way, and once only."""
    assert data.digest == splits(config).digest
    _read[json.dumps(vars(config), sort_keys=True)] = data
