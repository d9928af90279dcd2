"""What cannot be together in a configuration although each value is fine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.fields import nearest
from pipeline.groups import options_of
from trainers import models
from trainers.options import bytes_of

if TYPE_CHECKING:
    from pipeline.config import Config


def contradictions(config: Config) -> list[str]:
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
