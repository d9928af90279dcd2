"""Optimisers and their learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainers import metrics
from trainers.options import When, option, span
from trainers.parallel import sum_gradients
from trainers.schedules import cosine_lr, step_lr
from trainers.step_index import Index, select

_steps = When("the schedule is step", lambda o: o.schedule == "step")
_cosine = When("the schedule is cosine", lambda o: o.schedule == "cosine")
_sgd = When("the optimiser is sgd", lambda o: o.name == "sgd")


@dataclass
class OptimConfig:
    """The student's (or a teacher's) optimiser and its learning rate over all epochs."""

    name: str = option("adamw", "name of the optimiser", choices=("adamw", "sgd"))
    schedule: str = option(
        "cosine",
        "learning rate: cosine to min_lr with a warm-up, or steps at the milestones",
        choices=("cosine", "step"),
        when=_steps,
    )
    milestones: list[float] = option(
        [0.625, 0.75, 0.875],
        "epochs of the learning rate's steps (or fractions of the budget below 1)",
        low=0,
        when=_steps,
    )
    step_factor: float = option(
        0.1, "factor of the learning rate at a milestone", low=0, high=1, when=_steps
    )
    lr: float = option(1e-3, "peak learning rate", low=0)
    weight_decay: float = option(3e-4, "weight decay", low=0)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1, when=_sgd)
    nesterov: bool = option(True, "Nesterov momentum", when=_sgd)
    warmup_epochs: float = option(
        0.0625,
        "linear warm-up of the learning rate: epochs, or a fraction of the budget below 1",
        low=0,
        when=_cosine,
    )
    min_lr: float = option(1e-6, "learning rate of the last step", low=0, when=_cosine)
    batch: int = option(128, "images per step", low=1)
    steps_per_epoch: int | None = option(
        None,
        "steps of an epoch, with passes over the images as they are needed (null: one pass over "
        "all images, unlabelled ones included)",
        low=1,
        added=True,
    )

    def lr_at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Learning rate of optimiser step `step`, counted over all epochs."""
        if _steps(self):
            at = [span(milestone, epochs) for milestone in self.milestones]
            return step_lr(step // steps_per_epoch, at, base=self.lr, factor=self.step_factor)
        warmup = span(self.warmup_epochs, epochs) * steps_per_epoch
        total = steps_per_epoch * epochs
        return cosine_lr(step, total, base=self.lr, floor=self.min_lr, warmup=warmup)


@dataclass
class StudentOptimConfig(OptimConfig):
    """The same for a student, which may learn from unlabelled images too."""

    unlabelled_share: float = option(
        0.5,
        "share of the unlabelled images in every batch, where data.unlabelled gives some",
        low=0.01,
        high=0.99,
        added=True,
    )


def build_optimiser(
    config: OptimConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser in its fused form (one kernel for all parameters)."""
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
    return adamw(parameters, config.lr, config.weight_decay)


def adamw(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW in its fused form, of parameters or of groups of them."""
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    _make_capturable(optimiser)
    return optimiser


def _make_capturable(optimiser: torch.optim.Optimizer) -> None:
    """Let a CUDA graph record the steps of an AdamW on a GPU: a fused one makes the same steps."""
    for group in optimiser.param_groups:
        if "capturable" in group:
            group["capturable"] = all(p.is_cuda for p in group["params"])


def saved_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as it is saved: of any device the same, with the learning rates as numbers."""
    found = optimiser.state_dict()
    for group in found["param_groups"]:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over what `saved_optimiser` gave."""
    optimiser.load_state_dict(saved)
    _make_capturable(optimiser)


def gradient_step(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    *,
    clip: float = 0.0,
) -> dict[str, Tensor]:
    """One step of the optimiser down the gradient of a loss, whose norm is at most `clip` (0: any).

    With a scaler the gradient is of the scaled loss. A step whose gradient is not finite is
    skipped: `train/skipped` is 1 then, and 0 otherwise. The host waits for nothing, because fused
    optimisers read on the device whether to skip (Micikevicius et al. 2018, arXiv 1710.03740).
    """
    optimiser.zero_grad(set_to_none=True)
    if scaler is None:
        loss.backward()
        sum_gradients()
        _clip(optimiser, clip)
        optimiser.step()
        return {}
    one = torch.ones_like(loss, requires_grad=False)
    scale = scaler.scale(one)
    (loss * scale).backward()
    sum_gradients()
    try:
        scaler.unscale_(optimiser)
        _clip(optimiser, clip)
        scaler.step(optimiser)
    except RuntimeError:  # of a recording that failed: the same step is done without one
        scaler._per_optimizer_states.clear()
        raise
    scaler.update()
    return {metrics.SKIPPED: (scaler.scale(one) < scale).float()}


def _clip(optimiser: torch.optim.Optimizer, largest: float) -> None:
    if largest > 0:
        learning = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learning, largest)


def lr_table(rates: list[float], device: torch.device) -> Callable[[Index], float | Tensor]:
    """The learning rate of each step: on a GPU a tensor there, which a CUDA graph reads and for
    which no step waits."""
    if device.type != "cuda":
        return lambda at: rates[int(at)]
    on_device = torch.tensor(rates, device=device)
    return lambda at: select(on_device, at)


def set_lr(optimiser: torch.optim.Optimizer, lr: float | Tensor) -> None:
    """The learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = lr
