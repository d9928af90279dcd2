"""Speed of the B-Step's loop next to a bare torch loop of the same student."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from benchmarks.setting import Run, Setting
from benchmarks.shown import at_least, at_most, ratios, spread, table
from trainers.data import TrainingData
from trainers.distillation.b_step import BStep
from trainers.distillation.state import Teacher
from trainers.loop import snapshot
from trainers.methods.alternating import alternating
from trainers.methods.base import StepPosition

BARE = "bare loop"
WARM_UP = 2  # rounds that are not counted
BATCHES_KEPT = 64  # of the bare loop, which uses them in turn
CAPTION = """\
B-Step, images per second: whole epochs of the training loop in the mixed part of the budget, KD \
weight above 0, gate open, without validation. Bare loop: forward, backward and optimiser step of \
the same student, batch, memory format and optimiser with plain cross-entropy, on float images \
that lie ready-made on the device. {rounds} rounds, interleaved; median (least … largest); ratios \
within a round. Targets: CE at least 0.90 of the bare loop's speed; KD and every rung at most \
1.25 of CE's time."""

Epoch = Callable[[], int]  # runs one epoch and gives the number of its images


def compare(
    setting: Setting, data: TrainingData, teachers: list[Teacher], rungs: list[str], rounds: int
) -> str:
    """The table of the B-Step's speed."""
    contenders = {BARE: bare_epoch(setting.run("CE", data, []))}
    contenders |= {rung: b_step_epoch(setting.run(rung, data, teachers)) for rung in rungs}
    speeds = interleaved(setting, contenders, WARM_UP + rounds)
    rows = []
    for name, values in speeds.items():
        share, times = ratios(values, speeds[BARE]), ratios(speeds["CE"], values)
        target = at_least(0.9, share) if name == "CE" else at_most(1.25, times)
        cells = [name, spread(values, 0), spread(share), spread(times)]
        rows.append([*cells, "" if name == BARE else target])
    head = ["", "images/s", "speed / bare loop", "time / CE", "target"]
    return table(CAPTION.format(rounds=rounds), head, rows)


def interleaved(
    setting: Setting, contenders: dict[str, Epoch], rounds: int
) -> dict[str, list[float]]:
    """Images per second in every counted round; each round begins with another contender."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = setting.clock()
            images = contenders[name]()
            speeds[name].append(images / (setting.clock() - began))
    return {name: values[WARM_UP:] for name, values in speeds.items()}


def b_step_epoch(run: Run) -> Epoch:
    """The loop of a rung's own B-Step, in the middle of its budget, again and again."""
    config, state, total = run.config, run.state, run.config.budget.student_epochs
    position = StepPosition(total // 2, total)
    assert config.mix.active(position.epoch, total), "the middle of the budget is not mixed"
    assert not run.teachers or state.method.needs_teachers(position), "no teacher work there"
    state.stage_student, state.gate_open = snapshot(state.student), bool(alternating(state.method))
    step = BStep(run.inputs(), state, position, fresh=True)
    images = _images_of_epoch(run)

    def epoch() -> int:
        step._train(position)  # `step.epoch` would add the validation
        return images

    return epoch


def bare_epoch(run: Run) -> Epoch:
    """The same student and optimiser with nothing around them."""
    student, optimiser = run.state.student, run.state.optimiser
    batches, images = _ready_batches(run), _images_of_epoch(run)
    steps = len(_rows(run))

    def epoch() -> int:
        student.train()
        for step in range(steps):
            images_BCHW, labels_B = batches[step % len(batches)]
            loss = F.cross_entropy(student(images_BCHW), labels_B)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return images

    return epoch


def _ready_batches(run: Run) -> list[tuple[Tensor, Tensor]]:
    """Normalised float images and labels of an epoch's first batches."""
    views = run.inputs().views
    return [(views.batch(rows), views.labels(rows)) for rows in _rows(run)[:BATCHES_KEPT]]


def _images_of_epoch(run: Run) -> int:
    return _rows(run).numel()


def _rows(run: Run) -> Tensor:
    """The rows of an epoch's steps, [steps, B]."""
    first = StepPosition(0, run.config.budget.student_epochs)
    return run.inputs().plan("student", first, None, unlabelled=False).rows
