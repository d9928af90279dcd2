"""Cases to check and to measure: rungs, methods and switches on random images and teachers.

Time, waits and agreement of a step do not depend on what images show, or teachers know. Built
without the configuration's files, so that torch is enough; tests/benchmarks/test_gpu.py holds the
rungs to conf/cfg.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainers import finetune, models
from trainers.data import DataConfig, Images, TrainingData, Unlabelled
from trainers.data.views import Views
from trainers.distillation.a_step import AStep
from trainers.distillation.b_step import BStep
from trainers.distillation.config import BudgetConfig, DistillConfig, StudentConfig
from trainers.distillation.state import DistillState, StepInputs, Teacher
from trainers.finetune import FinetuneConfig, FinetuneState, RecipeConfig, TeacherConfig
from trainers.loop import snapshot
from trainers.methods import METHODS
from trainers.methods.alternating import alternating
from trainers.methods.base import StepPosition
from trainers.mixing import MixConfig
from trainers.models.freezing import freeze
from trainers.numerics import Numerics
from trainers.optim import OptimConfig, StudentOptimConfig
from trainers.rng import seeded
from trainers.step_graph import Graphs
from trainers.view_bank import Bank, ViewOutputs

_CE: dict[str, Any] = {"kd_target": "none", "bottleneck": False, "num_stages": 1}
_L0 = _CE | {"kd_target": "auto"}
_L1 = _L0 | {"bottleneck": True}
_L2 = _L1 | {"num_stages": 4}
_L3 = _L2 | {"adapt": "backbone", "teacher_levels": [1]}
RUNGS: dict[str, dict[str, Any]] = {
    "CE": _CE,
    "KD": _CE | {"kd_target": "avg"},
    "stack": _CE | {"kd_target": "stack"},
    "self": _CE | {"kd_target": "self"},
    "L0": _L0,
    "L1": _L1,
    "L2": _L2,
    "L3": _L3,
    "L4": _L3
    | {"student_levels": [-1, -1, 1, 1], "teacher_levels": [1, 1, 0, 0], "freeze_bn": True},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "KD by confidence": _CE | {"kd_target": "weighted_conf"},
    "KD unlabelled": RUNGS["KD"],
    "L2 live query": _L2 | {"query": "live"},
    "L2 no query": _L2 | {"query": "none"},
    "L2 EMA query": _L2 | {"query": "ema"},
    "L2 query dropout and residual": _L2 | {"query_dropout": 0.5, "residual": True},
    "L2 residual": _L2 | {"residual": True},
    "L2 folds": _L2 | {"folds": 3},
    "L2 unlabelled": _L2,
    "L2 EMA": _L2 | {"ema_weight": 0.5},
    "L2 target same": _L2 | {"target_view": "same"},
    "L2 DKD": _L2 | {"use_dkd_with_synergy": True},
    "L2 sample gate": _L2 | {"kd_sample_gate": True, "kd_label_guard": True},
    "L2 disagreement": _L2 | {"disagree_lambda_high": 0.5},
    "L2 features": _L2 | {"feat_kd_alpha": 0.1},
    "L2 placebo": _L2 | {"placebo": "image"},
}
HALF_UNLABELLED = ("KD unlabelled", "L2 unlabelled")  # these have labels of half of the images
BASELINES = tuple(name for name in METHODS if name not in ("asib", "ce"))
TEACHER = "teacher"  # that is fine-tuned, in step "T"
NAMES = (*RUNGS, *SWITCHES, *BASELINES, TEACHER)
CLASSES, SIZE = 100, 32
MEAN, STD = [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]


@dataclass(frozen=True)
class Scale:
    """Networks, images and batch of a measurement."""

    student: str = "resnet8x4"
    teacher: str = "resnet32x4"
    images: int = 25_600
    batch: int = 128
    views: int = 4
    epochs: int = 8


def config(
    name: str, scale: Scale, numerics: Numerics | None = None, **method: Any
) -> DistillConfig:
    """The distillation of a rung, switch or method of the literature; `method`: more options."""
    options = {**RUNGS, **SWITCHES}.get(name)
    if options is not None:
        chosen = METHODS["asib"].config_type(
            **(options | {"enable_kd_after_syn_acc": 0.0} | method)
        )
    else:
        chosen = METHODS[name].config_type(**method)
    return DistillConfig(
        student=StudentConfig(scale.student),
        method=chosen,
        data=_data(scale),
        mix=MixConfig(),
        optim=StudentOptimConfig(batch=scale.batch),
        budget=BudgetConfig(student_epochs=scale.epochs, adapt_epochs=scale.epochs),
        numerics=numerics or Numerics(),
    )


def _data(scale: Scale) -> DataConfig:
    return DataConfig(
        name="cifar100",
        image_size=SIZE,
        channels=3,
        classes=CLASSES,
        views=scale.views,
        crop_pad=4,
        flip=True,
        mean=MEAN,
        std=STD,
    )


def teacher_config(scale: Scale, numerics: Numerics | None = None) -> FinetuneConfig:
    """The fine-tuning of a teacher."""
    recipe = RecipeConfig(epochs=scale.epochs, optim=OptimConfig(batch=scale.batch))
    teacher = TeacherConfig(model=scale.teacher, recipe=recipe)
    return FinetuneConfig(teacher, _data(scale), numerics or Numerics())


def random_data(scale: Scale, device: torch.device, val: int = 512) -> TrainingData:
    """Random pixels with labels in turn."""
    draw = torch.Generator().manual_seed(0)

    def some(count: int) -> Images:
        pixels = torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=draw)
        return Images(pixels.to(device), (torch.arange(count) % CLASSES).to(device), "random")

    return TrainingData(some(scale.images), some(val))


def data_of(name: str, data: TrainingData) -> TrainingData:
    """The data of a case: of some only the first half of the images have labels."""
    if name not in HALF_UNLABELLED:
        return data
    train, known = data.train, len(data.train.labels) // 2
    return data._replace(
        train=train._replace(pixels=train.pixels[:known], labels=train.labels[:known]),
        unlabelled=Unlabelled(train.pixels[known:], train.digest),
    )


def read_by(config: DistillConfig, teachers: list[Teacher]) -> list[Teacher]:
    """The teachers that a case reads: all, one in the place of its own student, or none."""
    if config.method.own_teacher() is not None:
        return teachers[:1]
    return teachers if config.method.reads_teachers() else []


def random_teachers(scale: Scale, data: TrainingData, count: int = 2) -> list[Teacher]:
    """Networks with initial weights and banks of random rows in the place of their outputs, drawn
    on the CPU so that every device has the same."""
    draw, found, device = torch.Generator().manual_seed(1), [], data.train.device

    for number in range(count):
        with seeded(number, "teacher"):
            net = models.build(scale.teacher, CLASSES, SIZE, in_chans=3)
        net = models.place(freeze(net), device, Numerics().layout())
        width = models.pooled_dim(net)

        def rows(count: int, width: int = width) -> ViewOutputs:
            logits = torch.randn(count, CLASSES, generator=draw)
            pooled = torch.rand(count, width, generator=draw)
            return ViewOutputs(logits.half().to(device), pooled.half().to(device))

        bank = Bank(rows(scale.images * scale.views), rows(len(data.val.labels)))
        found.append(Teacher(net, bank))
    return found


@dataclass
class Work:
    """One step ("A" or "B") of a case in the middle of its budget, ready to train epochs."""

    config: DistillConfig
    state: DistillState
    step: AStep | BStep
    position: StepPosition

    def epoch(self) -> dict[str, float]:
        """One epoch's steps, without validation."""
        return self.step._train(self.position)

    def learning(self) -> list[nn.Parameter]:
        """The parameters that this step's optimiser moves."""
        a_step = isinstance(self.step, AStep)
        optimiser = self.step.optimiser if a_step else self.state.optimiser
        return [p for group in optimiser.param_groups for p in group["params"]]


@dataclass
class TeacherWork:
    """A teacher in the middle of its fine-tuning, ready to train epochs."""

    config: FinetuneConfig
    state: FinetuneState
    views: Views

    def epoch(self) -> dict[str, float]:
        """One epoch's steps, without validation."""
        config, middle = self.config, self.config.teacher.recipe.epochs // 2
        return finetune._train_epoch(config, config.numerics, self.views, self.state, middle)

    def learning(self) -> list[nn.Parameter]:
        """The parameters that the optimiser moves."""
        return [*self.state.model.parameters()]


def small_work(
    name: str,
    step: str,
    scale: Scale,
    device: torch.device,
    numerics: Numerics | None = None,
    *,
    graph: bool = False,
) -> Work | TeacherWork:
    """A step of any case, with data and teachers of its own."""
    data = data_of(name, random_data(scale, device))
    if name != TEACHER:
        teachers = random_teachers(scale, data)
        return work(config(name, scale, numerics), data, teachers, step, graph=graph)
    settings = teacher_config(scale, numerics)
    state = FinetuneState.new(settings, device)
    state.graphs = Graphs(device) if graph else None
    return TeacherWork(settings, state, Views(data.train, settings.data, settings.numerics))


def work(
    config: DistillConfig,
    data: TrainingData,
    teachers: list[Teacher],
    step: str = "B",
    *,
    graph: bool = False,
) -> Work:
    """A step's loop in the second half of the budget: images are mixed, the gate is open. `graph`:
    its steps are CUDA graphs."""
    needed = read_by(config, teachers)
    state = DistillState.new(config, data, needed)
    state.graphs = Graphs(data.train.device) if graph else None
    inputs = StepInputs.prepare(config, data, needed, state)
    state.stage_student, state.gate_open = snapshot(state.student), bool(alternating(state.method))
    total = config.budget.student_epochs
    position = StepPosition(total // 2, total, 1, 1, 2)
    kind: Callable[..., AStep | BStep] = {"A": AStep, "B": BStep}[step]
    return Work(config, state, kind(inputs, state, position, fresh=True), position)


def steps_of(name: str) -> str:
    """The steps that a case has: "AB", "B", or "T"."""
    if name == TEACHER:
        return "T"
    return "AB" if config(name, Scale()).method.a_step_epochs(1) else "B"
