"""Short trajectories of a teacher, of every rung and of every method, stored next to the tests.

A change that moves these numbers needs a higher FINETUNE_VERSION or DISTILL_VERSION, because old
results no longer compare with new ones. The command that rewrites them:

    python -m tests.trainers.golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.config import compose
from pipeline.identity import distill_config, finetune_config
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import metrics
from trainers.data import TrainingData, load
from trainers.distill import DISTILL_VERSION
from trainers.finetune import FINETUNE_VERSION, FinetuneState, finetune
from trainers.loop import Terms
from trainers.methods import METHODS
from trainers.view_bank import Bank

FILE = Path(__file__).with_name("golden.json")
STEPS = 24  # of a distillation: 4 stages of (4 A-Step, 2 B-Step) steps
# Long enough to reach every stage, mixing, gate and cooldown; too short for rounding to grow.
OVERRIDES = [
    "bench=digits_all",
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

# Perturbation of `rounding_effect`: another processor rounded 1 to 5 % of the entries differently.
MOVES, MOVED = 4, 0.1

BASELINES = tuple(name for name in METHODS if name != "asib")

# Teachers this good leave auto routing nothing to choose, and the placebos nothing to take.
MORE = {f"{rung}_null": ["method.kd_target=synergy"] for rung in ("L2", "L3")}
# Other placebos, and other shares of the average, leave no trace in so short a trajectory of such
# teachers.
RUNGS = tuple(rung for rung in tiny.RUNGS if "_null_" not in rung and rung != "KD_conf")


class Start(NamedTuple):
    """The trained teachers of all golden distillations, and the losses of their epochs."""

    world: World
    losses: dict[str, list[float]]


def start() -> Start:
    base = compose(["cfg=KD", *OVERRIDES])
    splits = load(base.data)
    data, teachers, losses = TrainingData(splits.train, splits.val), [], {}
    for number in (0, 1):
        config = finetune_config(base, number)
        state = FinetuneState.new(config)
        epochs = finetune(config, data, state)
        losses[f"teacher {number}"] = [e.metrics[metrics.LOSS_TOTAL] for e in epochs]
        teachers.append(tiny.frozen_teacher(state.model, config, data))
    return Start(World(splits, data, teachers), losses)


def overrides_of(stage: str, name: str) -> list[str]:
    """Overrides of a rung (stage "distill") or of a method of the literature ("methods")."""
    return of_rung(name) if stage == "distill" else of_method(name)


def trajectories() -> dict[str, Any]:
    """The losses of all optimiser steps, by stage and rung, with the versions they belong to."""
    world, losses = start()
    return {
        "FINETUNE_VERSION": FINETUNE_VERSION,
        "DISTILL_VERSION": DISTILL_VERSION,
        "finetune": losses,
        "distill": {cfg: step_losses(of_rung(cfg), world) for cfg in RUNGS},
        "methods": {name: step_losses(of_method(name), world) for name in BASELINES},
    }


def rounding_effect(overrides: list[str], world: World) -> list[float]:
    """How far rounding of the view banks can move each step's loss, as a share of it: the largest
    deviation of MOVES runs whose banks differ in the last bit of some entries."""
    exact = step_losses(overrides, world)
    moved = [step_losses(overrides, rounded_otherwise(world, seed)) for seed in range(MOVES)]
    return [max(abs(run[i] - x) / abs(x) for run in moved) for i, x in enumerate(exact)]


def rounded_otherwise(world: World, seed: int) -> World:
    """The same world with one unit of half precision more or less in MOVED of all bank entries."""
    draw = torch.Generator().manual_seed(seed)

    def moved(table: Tensor) -> Tensor:
        up = 2 * torch.randint(0, 2, table.shape, generator=draw, dtype=torch.int16) - 1
        here = (torch.rand(table.shape, generator=draw) < MOVED) & (table != 0)
        return (table.view(torch.int16) + up * here).view(torch.half)

    def bank(old: Bank) -> Bank:
        return Bank(*(type(part)(*map(moved, part)) for part in old))

    return world._replace(teachers=[t._replace(bank=bank(t.bank)) for t in world.teachers])


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
        if hasattr(state.method, name):  # the A-Step's are those of alternating methods
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
