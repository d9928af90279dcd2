"""A world small enough to train in: 200 digits of 8 pixels, every network a resnet8."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline import config as configuration
from pipeline.config import Config
from pipeline.identity import distill_config, finetune_config
from trainers.data import Splits, TrainingData, load
from trainers.data.views import Normaliser, Views
from trainers.distill import distill
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, Teacher
from trainers.errors import Interrupted
from trainers.finetune import FinetuneConfig, FinetuneState, finetune
from trainers.loop import Epoch
from trainers.models import freezing
from trainers.view_bank import (
    Bank,
    ViewOutputs,
    assemble,
    image_outputs,
    mapped,
    view_outputs,
)

RUNGS = (
    "CE",
    "KD",
    "L0",
    "L1",
    "L2",
    "L3",
    "L4",
    "side_cccp_ppf",
    "side_asib_cccp",
    "L2_null",
    "L2_null_class",
    "L2_null_tokens",
    "L2_null_by_label",
    "L3_null",
    "L3_null_by_label",
    "KD_null",
    "KD_conf",
    "stack",
    "self",
)
OVERRIDES = [
    "bench=digits_all",
    "data.train_limit=200",
    "data.image_size=8",
    "data.crop_pad=1",
    "data.views=2",
    "optim.batch=50",
    "budget.student_epochs=4",
    "budget.adapt_epochs=8",
    "method.token_dim=16",
    "method.a_lr=2e-2",
    "method.enable_kd_after_syn_acc=0.01",
    *(
        f"teacher.{k}.{what}"
        for k in (0, 1)
        for what in ("model=resnet8", "recipe.epochs=5", "recipe.optim.batch=50")
    ),
]
SMALL = ["data.train_limit=100", "data.val_fraction=0.3"]
# Two stages of (3 A-Step epochs, the first on the labels alone; 2 B-Step epochs).
TWO_STAGES = ["method.num_stages=2", "budget.adapt_epochs=6", "budget.student_epochs=4"]


class World(NamedTuple):
    """The data and the two teachers that all tests share; nothing may change them."""

    splits: Splits
    data: TrainingData
    teachers: list[Teacher]


class Run(NamedTuple):
    """What a run ended with, and what it yielded."""

    state: DistillState
    epochs: list[Epoch]

    def losses(self, name: str = "total") -> list[float]:
        return [e.metrics[f"train/loss/{name}"] for e in self.epochs]


@cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return configuration.compose(list(overrides))


def compose(cfg: str, *overrides: str) -> Config:
    """A copy of the composed configuration: composing takes longer than an epoch."""
    return copy.deepcopy(_composed((f"cfg={cfg}", *OVERRIDES, *overrides)))


def rung(cfg: str, *overrides: str, **method: Any) -> DistillConfig:
    """A distillation stage's configuration; `method` sets fields past the checks of ranges."""
    config = distill_config(compose(cfg, *overrides))
    for name, value in method.items():
        assert hasattr(config.method, name)
        setattr(config.method, name, value)
    return config


def baseline(name: str, *overrides: str, **method: Any) -> DistillConfig:
    """A distillation by a method of the literature: the tiny world without ASIB's options."""
    shared = [text for text in OVERRIDES if not text.startswith("method.")]
    config = distill_config(copy.deepcopy(_composed((f"method={name}", *shared, *overrides))))
    for field, value in method.items():
        assert hasattr(config.method, field)
        setattr(config.method, field, value)
    return config


def teacher_config(number: int = 0, *overrides: str) -> FinetuneConfig:
    return finetune_config(compose("KD", *overrides), number)


def make_world(*overrides: str) -> World:
    splits = load(compose("KD", *overrides).data)
    data = TrainingData(splits.train, splits.val)
    teachers = []
    for number in (0, 1):
        config = teacher_config(number, *overrides)
        state = FinetuneState.new(config)
        list(finetune(config, data, state))
        teachers.append(frozen_teacher(state.model, config, data))
    return World(splits, data, teachers)


def make_small_world() -> World:
    """The same with half of the images: for tests of hundreds of runs."""
    return make_world(*SMALL)


def frozen_teacher(model: nn.Module, config: FinetuneConfig, data: TrainingData) -> Teacher:
    """A teacher with its bank, as the shell makes it."""
    freezing.freeze(model).zero_grad(set_to_none=True)
    views = Views(data.train, config.data, config.numerics, data.unlabelled)
    train = assemble(view_outputs(model, views, config.numerics), views.rows, views.device)
    normalise = Normaliser(config.data, config.numerics, views.device)
    val = image_outputs(model, data.val, normalise, config.numerics)
    return Teacher(model, Bank(train, ViewOutputs(val.logits.half(), val.pooled.half())))


def with_mapped_banks(world: World, folder: Path) -> World:
    """The same world with banks in parts of 150 rows."""

    def bank(old: Bank) -> Bank:
        parts = zip(old.train.logits.split(150), old.train.pooled.split(150), strict=True)
        rows = len(old.train.logits)
        train = mapped([ViewOutputs(*part) for part in parts], rows, torch.device("cpu"), folder)
        return Bank(train, old.val)

    teachers = [Teacher(teacher.model, bank(teacher.bank)) for teacher in world.teachers]
    return world._replace(teachers=teachers)


def teachers_of(config: DistillConfig, world: World) -> list[Teacher]:
    if config.method.own_teacher() is not None:
        return world.teachers[:1]  # a network of the student's kind
    return world.teachers if config.method.reads_teachers() else []


def new_state(config: DistillConfig, world: World) -> DistillState:
    return DistillState.new(config, world.data, teachers_of(config, world))


def epochs_of(config: DistillConfig, world: World, state: DistillState) -> Iterator[Epoch]:
    return distill(config, world.data, teachers_of(config, world), state)


def run(config: DistillConfig, world: World) -> Run:
    state = new_state(config, world)
    return Run(state, list(epochs_of(config, world, state)))


def until_interrupted(train: Callable[[], Iterator[Epoch]]) -> list[Epoch]:
    """Epochs up to an interruption, or to the end."""
    found = []
    try:
        for epoch in train():
            found.append(epoch)
    except Interrupted:
        pass
    return found


def stop_after(steps: int) -> Callable[[], bool]:
    """A `stop` that turns true once that many steps were let through."""
    left = [steps]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


def through_a_file(saved: Any) -> Any:
    """What a commit gives back: tensors and plain values, nothing else."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def clone(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths at which two nested values are not bit for bit the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} parts"]
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{path}/{i}")
        ]
    return [] if type(a) is type(b) and a == b else [f"{path}: {a!r} and {b!r}"]


def without_cost(epochs: list[Epoch]) -> list[tuple[Any, ...]]:
    """What must be the same in two runs that are the same: all but times."""
    return [
        (
            e.index,
            e.stage,
            e.step,
            {k: v for k, v in e.metrics.items() if not k.startswith("cost/")},
        )
        for e in epochs
    ]
