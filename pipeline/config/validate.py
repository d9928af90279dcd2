"""Contradictions in a configuration: values that are valid alone and not together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.suggest import nearest
from pipeline.config.groups import options_of
from trainers import models
from trainers.data import has_validation
from trainers.options import bytes_of

if TYPE_CHECKING:
    from pipeline.config import Config


def contradictions(config: Config) -> list[str]:
    """Values that are valid alone and not together, one sentence each."""
    width = models.known_width(config.student.model)  # without building a large net
    return [
        *config.method.errors(config.budget.adapt_epochs, width, len(config.teacher)),
        *_data(config),
        *_budget(config),
        *_runtime(config),
        *_teachers(config),
        *_classes(config),
        *_networks(config),
    ]


def _data(config: Config) -> list[str]:
    """Preparation that does not fit the images; selection without validation images."""
    found, data = [], config.data
    for name in ("mean", "std"):
        if len(getattr(data, name)) != data.channels:
            found.append(f"data.{name}: {data.channels} values needed, one per channel")
    if any(value <= 0 for value in data.std if isinstance(value, float)):
        found.append("data.std: values above 0")
    if data.crop_pad >= data.image_size:
        found.append(f"data.crop_pad={data.crop_pad}: less than data.image_size needed")
    placebo = getattr(config.method, "placebo", "none")
    if data.unlabelled != 0 and placebo in ("teachers", "class"):
        found.append(
            f"method.placebo={placebo} needs the label of every image, and "
            f"data.unlabelled={data.unlabelled} gives images without; give image or tokens"
        )
    if data.unlabelled != 0 and config.optim.batch < 2:
        found.append("optim.batch=1: one image with and one without a label are needed")
    limit, few = data.teacher_limit, data.train_limit
    if limit is not None and (few is None or limit < few):
        found.append(
            f"data.teacher_limit={limit}: at least as many images as the student's, and "
            f"data.train_limit={'null' if few is None else few}"
        )
    kept = config.bank.logits
    if isinstance(kept, int) and kept >= data.classes:
        fewer = f"1 to {data.classes - 1}, fewer than data.classes={data.classes}"
        found.append(f"bank.logits={kept}: too many (allowed: all, {fewer})")
    blind = not has_validation(data)
    if blind and config.select == "best":
        found.append("data.val_fraction=0 leaves nothing to select by: set select=last")
    if blind and (option := config.method.reads_validation()):
        found.append(f"data.val_fraction=0 leaves nothing to choose {option} by")
    if data.views == 0 and (option := config.method.reads_banks()):
        found.append(f"data.views=0: {option} is fitted to fixed views of the images")
    if blind and config.method.uses_gate():
        found.append("data.val_fraction=0: the gate reads synergy accuracy on validation images")
    return found


def _budget(config: Config) -> list[str]:
    """Too few epochs for the stages; a control matched to an unknown rung."""
    found, budget, stages = [], config.budget, config.method.stage_count()
    if budget.student_epochs < stages:
        found.append(
            f"budget.student_epochs={budget.student_epochs}: fewer than the method's {stages} "
            "stages"
        )
    given, key = budget.student_epochs_per_stage, "budget.student_epochs_per_stage"
    if given is not None and (len(given), sum(given)) != (stages, budget.student_epochs):
        found.append(
            f"{key}={given}: one number for each of the method's stages ({stages}) needed, "
            f"budget.student_epochs={budget.student_epochs} in all"
        )
    if given is not None and budget.matched_to is not None:
        found.append(f"{key}={given}: the epochs of a control with matched time are not known yet")
    rung, rungs = budget.matched_to, [r for r in options_of("cfg") if r != "CE_matched"]
    if rung is not None and rung not in rungs:
        found.append(f"budget.matched_to={rung}: unknown{nearest(rung, rungs, show_all=True)}")
    if rung is not None and config.method.reads_teachers():
        found.append(f"budget.matched_to={rung} is for a control without teachers: cfg=CE_matched")
    return found


def _runtime(config: Config) -> list[str]:
    """Leases that would expire between two heartbeats; ranks that cannot compile; sizes that cannot
    be read."""
    found, runtime = [], config.runtime
    if runtime.expiry_s <= 2 * runtime.heartbeat_s:
        found.append(
            f"runtime.expiry_s={runtime.expiry_s:g}: more than two heartbeats needed "
            f"(runtime.heartbeat_s={runtime.heartbeat_s:g})"
        )
    if runtime.ranks > 1 and config.numerics.compile:
        found.append(
            f"runtime.ranks={runtime.ranks}: several ranks do not compile (allowed: 1, or "
            "numerics.compile=false)"
        )
    if runtime.device_budget is not None:
        try:
            bytes_of(runtime.device_budget)
        except ValueError as error:
            found.append(f"runtime.device_budget={runtime.device_budget}: {error}")
    return found


def _teachers(config: Config) -> list[str]:
    """Teachers that are missing or misnumbered."""
    found, numbers = [], list(config.teacher)
    if config.method.reads_teachers() and not numbers:
        found.append("no teacher: add one with teacher@teacher.0=NAME")
    if sorted(map(int, numbers)) != list(range(len(numbers))):
        found.append(f"teacher: numbers {', '.join(numbers)}, not 0 … {len(numbers) - 1}")
    for number, teacher in config.teacher.items():
        if teacher.ckpt and not Path(teacher.ckpt).is_file():
            found.append(f"teacher.{number}.ckpt={teacher.ckpt}: no such file")
        if teacher.ckpt and config.data.teacher_limit is not None:
            found.append(
                f"data.teacher_limit={config.data.teacher_limit}: teacher.{number}.ckpt is used as "
                "it is, not trained on images"
            )
    return found


def _classes(config: Config) -> list[str]:
    """Invalid classes to train teachers on."""
    found, total = [], config.data.classes
    specialised = config.overlap not in (None, 100)
    if specialised and len(config.teacher) < 2:
        found.append(f"overlap={config.overlap}: at least two teachers are needed")
    elif specialised and min(len(t.classes or range(total)) for t in config.teachers()) < 2:
        found.append(
            f"overlap={config.overlap} leaves a teacher fewer than 2 of {total} classes: set a "
            "larger overlap, or use fewer teachers"
        )
    for number, teacher in config.teacher.items():
        key, own = f"teacher.{number}.classes", teacher.classes
        if teacher.ckpt and (specialised or own is not None):
            given = f"overlap={config.overlap}" if specialised else key
            found.append(f"{given}: teacher.{number}.ckpt is used as it is, not trained on classes")
        if own is None:
            continue
        if config.overlap is not None:
            found.append(f"{key}: overlap={config.overlap} sets it; give one of the two")
        if len(set(own)) != len(own) or len(own) < 2 or max(own) >= total:
            found.append(f"{key}={own}: at least 2 different classes of 0 … {total - 1} needed")
    return found


def _networks(config: Config) -> list[str]:
    """Networks that cannot take the images; freezing levels deeper than the network."""
    found = []
    nets = {"student": config.student} | {f"teacher.{k}": t for k, t in config.teacher.items()}
    for key, net in nets.items():
        levels = config.method.levels(key.partition(".")[0])
        blocks = models.known_blocks(net.model)
        name = f"method.{key.partition('.')[0]}_levels"
        if levels and blocks is not None and max(levels) > blocks:
            found.append(f"{name}={max(levels)}: {net.model} has {blocks} blocks and a head")
        data = config.data
        wrong = models.misfit(net.model, data.image_size, data.channels, net.pretrained)
        found += [f"{key}.model={net.model}: {wrong}"] if wrong else []
    return found
