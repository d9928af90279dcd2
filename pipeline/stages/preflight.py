"""Preflight: what can be found out before the first epoch of anything.

The data set and every given file are read, every network is built and run once on two images of
the data set's size, and the images of each class are counted. What is finished already is not
examined again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.cli.console import say
from pipeline.config import Config, ConfigError
from pipeline.identity import (
    absent_data,
    distill_config,
    of_teachers,
    run_key,
    splits,
    teacher_numbers,
)
from pipeline.session import refusals, store_of
from trainers import models
from trainers.data import DataConfig, DataMissing, Images
from trainers.distillation.state import step_sizes
from trainers.errors import UserError
from trainers.methods import METHODS
from trainers.models import weight_files

_LISTED = 10  # classes that are named


class _Network(NamedTuple):
    """A network that a stage needs, and the option that names it."""

    key: str  # teacher.0 or student
    model: str
    pretrained: bool
    file: str | None
    classes: int
    image_size: int
    channels: int
    maps: bool  # whether the method reads its feature maps


def faults(
    configs: Iterable[Config],
    numbers: Sequence[int] | None = None,
    *,
    dry: bool = False,
    keys: bool = True,
) -> list[str]:
    """Everything that is wrong, one sentence each, of the students of these configurations with
    the teachers that they read; where `numbers` is given, of these teachers alone. An absent data
    set is none in a `dry` run, which may be on a machine without it. A configuration with errors
    has no `keys`: its networks are all tried, as if no run were finished."""
    found: dict[str, None] = {}
    data: dict[str, bool] = {}  # whether it can be read
    networks: dict[_Network, None] = {}
    for config in configs:
        for one in (config, of_teachers(config)):
            name = repr(one.data)
            if name not in data:
                error = _data_fault(one.data)
                data[name] = error is None
                if error is not None and not (dry and isinstance(error, DataMissing)):
                    found[str(error)] = None
        if data[repr(config.data)]:
            found |= dict.fromkeys(_class_faults(config))
        readable = keys and all(data.values())
        networks |= dict.fromkeys(_networks(config, numbers, readable=readable))
    for network in networks:
        found |= dict.fromkeys(_network_faults(network))
    return list(found)


def with_the_rest(error: ConfigError, verb: str) -> ConfigError:
    """The error of a configuration with everything else that is wrong with it."""
    if error.config is None:
        return error
    more = [*faults([error.config], keys=False), *refusals(error.config.runtime, verb)]
    return ConfigError(list(dict.fromkeys([*error.errors, *more])))


def describe(configs: Iterable[Config]) -> None:
    """Print how many images of every class are used, of each data set that can be read; a class
    without a training image is a warning."""
    configs = list(configs)
    read = {repr(one.data): one.data for c in configs for one in (c, of_teachers(c))}
    for config in read.values():
        try:
            data = splits(config)
        except DataMissing:  # reported with the errors, or where the data is read
            continue
        parts = (
            f"{part} {_counted(images, config.classes)}"
            for part, images in zip(("train", "val", "test"), data[:3], strict=True)
        )
        say(f"data     {config.name}: images (of a class): {', '.join(parts)}")
        counts = data.train.labels.bincount(minlength=config.classes).tolist()
        names = [
            data.class_names[label] if data.class_names else str(label)
            for label, count in enumerate(counts)
            if not count
        ]
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            classes = f"{', '.join(names[:_LISTED])}{more}"
            say(f"warning  {config.name}: no training image of class {classes}", "yellow")
    steps: dict[str, list[str]] = {}
    for one in configs:
        if one.data.unlabelled != 0 and not absent_data(one):
            rungs = steps.setdefault(_steps(one), [])
            rungs += [one.rung] if one.rung not in rungs else []
    for text, rungs in steps.items():
        say(f"data     {', '.join(rungs)}: {text}")
    unread = [one.rung for one in configs if one.bank != distill_config(one).bank]
    if unread:
        say(
            f"bank     {', '.join(dict.fromkeys(unread))}: reads no view bank: bank.* has no effect"
        )


def _steps(config: Config) -> str:
    """`200 labelled images, 20,000 unlabelled, 15 steps an epoch of 64 + 64`."""
    data, taught = splits(config.data), config.method.is_taught()
    known, others = len(data.train.labels), len(data.unlabelled.pixels if data.unlabelled else ())
    sizes = step_sizes(distill_config(config), known, others, mixed=taught)
    batch = f"{sizes.labelled} + {sizes.unlabelled}" if taught else f"{sizes.labelled}"
    unused = "" if taught else " (not used: no teacher)"
    return (
        f"{known:,} labelled images, {others:,} unlabelled{unused}, {sizes.steps:,} steps an epoch "
        f"of {batch}"
    )


def _counted(images: Images, classes: int) -> str:
    """`180 (18)`, or with the least and most of a class: `180 (17 to 19)`."""
    counts = images.labels.bincount(minlength=classes).tolist()
    least, most = min(counts), max(counts)
    return f"{sum(counts)} ({least if least == most else f'{least} to {most}'})"


def _class_faults(config: Config) -> Iterator[str]:
    """Classes that a placebo cannot give another image of."""
    if getattr(config.method, "placebo", "none") != "class":
        return
    counts = splits(config.data).train.labels.bincount().tolist()
    if 1 in counts:
        alone = f"class {counts.index(1)} has one training image"
        yield f"method.placebo=class: {alone}, and no other to take; give image"


def _data_fault(data: DataConfig) -> UserError | None:
    try:
        splits(data)
    except UserError as error:
        return error
    return None


def _networks(
    config: Config, numbers: Sequence[int] | None, *, readable: bool
) -> Iterator[_Network]:
    """The networks of the stages that are not finished."""
    store, data = store_of(config.runtime), config.data
    maps = numbers is None and METHODS[config.method.name].needs_maps
    shape = (data.classes, data.image_size, data.channels, maps)

    def is_finished(stage: str, number: int = 0) -> bool:
        key = run_key(stage, config, teacher=number) if readable else None
        return key is not None and store.run(stage, key).whole_result() is not None

    for number in teacher_numbers(config) if numbers is None else numbers:
        teacher = config.teachers()[number]
        if teacher.ckpt and not Path(teacher.ckpt).is_file():
            readable = False  # an error of the configuration already; there is no key of it
        if not is_finished("finetune", number):
            pretrained = teacher.pretrained and not teacher.ckpt
            yield _Network(f"teacher.{number}", teacher.model, pretrained, teacher.ckpt, *shape)
    matched = config.budget.matched_to is not None
    if numbers is None and (matched or not is_finished("distill")):
        student = config.student
        yield _Network("student", student.model, student.pretrained, None, *shape)


def _network_faults(one: _Network) -> Iterator[str]:
    if models.misfit(one.model, one.image_size, one.channels, one.pretrained):
        return  # an error of the configuration already
    tried = models.trial(
        one.model, one.classes, one.image_size, one.channels, one.pretrained, one.maps
    )
    if tried.fault:
        yield f"{one.key}.model={one.model}: {tried.fault}"
    if one.file is None or not Path(one.file).is_file():
        return
    try:
        weights = weight_files.read_weights(one.file)
        if tried.weights:
            weight_files.fitting(tried.weights, weights, one.file)
    except weight_files.BadCheckpoint as error:
        yield f"{one.key}.ckpt: {error}"
