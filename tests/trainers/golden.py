"""Short trajectories of a teacher, of every rung and of every method, stored beside the tests.

They pin the numbers of the numerics: a change that moves them needs a higher FINETUNE_VERSION or
DISTILL_VERSION, because old results no longer compare with new ones. Write them anew with

    python -m tests.trainers.golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from pipeline.config import compose
from pipeline.identity import distill_config, finetune_config
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import TrainingData, load
from trainers.distill import DISTILL_VERSION
from trainers.finetune import FINETUNE_VERSION, FinetuneState, finetune
from trainers.loop import Terms
from trainers.methods import METHODS

FILE = Path(__file__).with_name("golden.json")
STEPS = 24  # of a distillation: 4 stages of (4 A-Step, 2 B-Step) steps
# Long enough to reach every stage, mixing, gate and cooldown; too short for rounding to grow.
OVERRIDES = [
    "bench=digits",
    "data.train_limit=200",
    "data.val_fraction=0.3",
    "data.image_size=8",
    "data.crop_pad=1",
    "optim.batch=100",
    "budget.student_epochs=4",
    "budget.adapt_epochs=8",
    "method.token_dim=16",
    "method.a_lr=3e-4",
    "method.enable_kd_after_syn_acc=0.01",
    "method.kd_alpha=1",
    *(
        f"teacher.{k}.{what}"
        for k in (0, 1)
        for what in (
            "model=resnet8",
            "recipe.epochs=6",
            "recipe.optim.batch=100",
            "recipe.optim.lr=3e-4",
        )
    ),
]

BASELINES = tuple(name for name in METHODS if name != "asib")

# Teachers this good leave auto routing nothing to choose, and the placebos nothing to take.
MORE = {f"{rung}_null": ["method.kd_target=synergy"] for rung in ("L2", "L3")}


def trajectories() -> dict[str, Any]:
    """The losses of all optimiser steps, by stage and rung, with the versions they belong to."""
    base = compose(["cfg=KD", *OVERRIDES])
    splits = load(base.data)
    data, teachers, losses = TrainingData(splits.train, splits.val), [], []
    for number in (0, 1):
        config = finetune_config(base, number)
        state = FinetuneState.new(config)
        means = [e.metrics["train/loss/total"] for e in finetune(config, data, state)]
        losses.append(means)
        teachers.append(tiny.frozen_teacher(state.model, config, data))
    world = World(splits, data, teachers)
    return {
        "FINETUNE_VERSION": FINETUNE_VERSION,
        "DISTILL_VERSION": DISTILL_VERSION,
        "finetune": dict(zip(("teacher 0", "teacher 1"), losses, strict=True)),
        "distill": {cfg: step_losses(of_rung(cfg), world) for cfg in tiny.RUNGS},
        "methods": {name: step_losses(of_method(name), world) for name in BASELINES},
    }


def of_rung(cfg: str) -> list[str]:
    return [f"cfg={cfg}", *OVERRIDES, *MORE.get(cfg, [])]


def of_method(name: str) -> list[str]:
    """A method of the literature: the same without ASIB's options."""
    return [f"method={name}", *(text for text in OVERRIDES if not text.startswith("method."))]


def step_losses(overrides: list[str], world: World) -> list[float]:
    """The total loss of every optimiser step of a run, A-Steps and B-Steps."""
    config, found = distill_config(compose(overrides)), []
    state = tiny.new_state(config, world)
    for name in ("teacher_terms", "student_terms"):
        setattr(state.method, name, recorded(getattr(state.method, name), found))
    list(tiny.epochs_of(config, world, state))
    return found


def recorded(terms: Any, found: list[float]) -> Any:
    def call(*arguments: Any) -> Terms:
        result = terms(*arguments)
        found.append(float(sum(value.detach() for value in result.losses.values())))
        return result

    return call


def main() -> None:
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(trajectories(), indent=1) + "\n")


if __name__ == "__main__":
    main()
