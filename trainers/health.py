"""Signs that a part of a run does nothing: pure rules over the metrics of its epochs.

A rule is given the metrics of all epochs so far, the present one last, and says whether it holds;
None where it does not apply. All that a rule carries over is in those metrics, so a run that goes
on is judged as one that was never cut off. `pipeline.names.WARNINGS` says what each means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

Metrics = Mapping[str, float]
Epochs = Sequence[Metrics]
Rule = Callable[[Epochs], bool | None]

PREFIX = "health/"
NEGLIGIBLE = 0.01  # of the cross-entropy term
NO_GRADIENT = 1e-12  # norm
SPREAD = 1e-3  # standard deviation over mean of a weight that counts as constant
NEAR = 0.05  # relative, of a mean standard deviation
EMPTY = 1.0  # nats: a rate that leaves no room for the label of one of three classes
AROUND_ONE = 0.25  # of its extremes over a batch


def check(epochs: Epochs, *, final: bool) -> dict[str, float]:
    """`health/<warning>` of the last of `epochs`, 1 or 0, of the rules that apply to it.

    `final`: it is the run's last one, so that rules over the whole run apply.
    """
    rules = EVERY_EPOCH | (OVER_THE_RUN if final else {})
    found = {name: rule(epochs) for name, rule in rules.items()}
    return {PREFIX + name: float(holds) for name, holds in found.items() if holds is not None}


def fired(epochs: Epochs) -> list[str]:
    """The warnings that `check` gave to any of the epochs, in the order of their first."""
    names = [
        key.removeprefix(PREFIX)
        for metrics in epochs
        for key, value in metrics.items()
        if key.startswith(PREFIX) and value
    ]
    return list(dict.fromkeys(names))


# Rules --------------------------------------------------------------------------------------


def synergy_at_chance(epochs: Epochs) -> bool | None:
    """The fusion that the B-Step will use is no better than guessing."""
    now = epochs[-1]
    if "synergy/restored" not in now or "synergy/chance" not in now:
        return None
    return now["synergy/restored"] <= now["synergy/chance"]


def gate_never_open(epochs: Epochs) -> bool | None:
    """The gate was closed at every reading of the run."""
    readings = _readings(epochs)
    return not any(readings) if readings else None


def gate_always_open(epochs: Epochs) -> bool | None:
    """The gate was open at every reading, of several."""
    readings = _readings(epochs)
    return all(readings) if len(readings) > 1 else None


def sigma_at_one(epochs: Epochs) -> bool | None:
    """The latent's standard deviation is that of the prior, and its mean tells next to nothing."""
    now = epochs[-1]
    if "bottleneck/sigma_mean" not in now:
        return None
    low, high = now["bottleneck/sigma_min"], now["bottleneck/sigma_max"]
    flat = low >= 1 - AROUND_ONE and high <= 1 + AROUND_ONE
    empty = now.get("bottleneck/rate", 0.0) <= EMPTY
    return flat and empty and abs(now["bottleneck/sigma_mean"] - 1) <= NEAR


def sigma_at_floor(epochs: Epochs) -> bool | None:
    """The latent's standard deviation is at its least value: nothing is random."""
    now = epochs[-1]
    if "bottleneck/sigma_mean" not in now or "bottleneck/sigma_floor" not in now:
        return None
    return now["bottleneck/sigma_mean"] <= (1 + NEAR) * now["bottleneck/sigma_floor"]


def kd_negligible(epochs: Epochs) -> bool | None:
    """What the student learns from teachers is under 1 % of the labels' term, or its weight was
    never above 0. It does not apply where a schedule holds the weight below half of its largest
    value so far."""
    now = epochs[-1]
    terms = {k: v for k, v in now.items() if k.startswith("train/loss/") and k != _TOTAL}
    ce = terms.pop("train/loss/ce", 0.0)
    weight = now.get("kd/weight", math.inf)
    largest = max(epoch.get("kd/weight", 0.0) for epoch in epochs)
    if now.get("stage/step") != 1.0 or ce <= 0:
        return None
    if "kd/weight" in now and largest == 0:
        return True
    if not terms or weight < 0.5 * largest:
        return None
    return sum(terms.values()) < NEGLIGIBLE * ce


def weight_constant(epochs: Epochs) -> bool | None:
    """A weight that is to tell samples apart is the same for all of them."""
    spread = epochs[-1].get("kd/weight_spread")
    return None if spread is None else spread < SPREAD


def adapter_without_gradient(epochs: Epochs) -> bool | None:
    """An adapter of the fusion does not learn."""
    return _stuck(epochs[-1], "bottleneck/adapter_grad")


def module_without_gradient(epochs: Epochs) -> bool | None:
    """A part of the fusion module, or a module of the method's own, does not learn."""
    return _stuck(epochs[-1], "bottleneck/fusion_grad", "kd/module_grad")


def freezing_not_as_asked(epochs: Epochs) -> bool | None:
    """A share of parameters that got gradients is not the one that was asked for."""
    now, end = epochs[-1], "_requested"
    pairs = [(now[k], now.get(k.removesuffix(end), 0.0)) for k in now if k.endswith(end)]
    return any(abs(asked - real) > 1e-9 for asked, real in pairs) if pairs else None


def non_finite(epochs: Epochs) -> bool | None:
    """A metric is not a finite number."""
    return not all(math.isfinite(value) for value in epochs[-1].values())


_TOTAL = "train/loss/total"
EVERY_EPOCH: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        synergy_at_chance, sigma_at_one, sigma_at_floor, kd_negligible, weight_constant,
        adapter_without_gradient, module_without_gradient, freezing_not_as_asked, non_finite,
    )
}  # fmt: skip
OVER_THE_RUN: dict[str, Rule] = {
    rule.__name__: rule for rule in (gate_never_open, gate_always_open)
}


def _readings(epochs: Epochs) -> list[bool]:
    return [epoch["synergy/gate"] > 0 for epoch in epochs if "synergy/gate" in epoch]


def _stuck(now: Metrics, *keys: str) -> bool | None:
    norms = [now[key] for key in keys if key in now]
    return min(norms) <= NO_GRADIENT if norms else None


# What the loops measure for them --------------------------------------------------------------


def chance(labels_M: torch.Tensor) -> float:
    """The accuracy that guessing reaches: the share of the commonest class, and two standard
    errors of an accuracy over M images."""
    share = float(labels_M.bincount().max()) / len(labels_M)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels_M))


@torch.no_grad()
def weakest_gradient(named: Iterable[tuple[str, nn.Parameter]], depth: int = 1) -> float:
    """The smallest gradient norm of the modules that the first `depth` parts of the names tell
    apart, from the last backward pass; 0 where a module got none. One wait."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(parameter)
    norms = [
        torch.stack([p.new_zeros(()) if p.grad is None else p.grad.norm() for p in group]).norm()
        for group in groups.values()
    ]
    return float(torch.stack(norms).min())
