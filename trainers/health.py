"""Health warnings: pure rules over the metrics of a run's epochs, each with its advice.

A rule gets the metrics of all epochs so far, the present one last, and returns whether the warning
holds; None where it does not apply. A rule depends on those metrics alone, so a resumed run gets
the warnings of a run that was never interrupted. `WARNINGS` is the table of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from trainers import metrics

Metrics = Mapping[str, float]
Epochs = Sequence[Metrics]
Rule = Callable[[Epochs], bool | None]

PREFIX = metrics.HEALTH
NEGLIGIBLE = 0.01  # of the cross-entropy term
NO_GRADIENT = 1e-12  # norm
SPREAD = 1e-3  # standard deviation over mean of a weight that counts as constant
NEAR = 0.05  # relative, of a mean standard deviation
EMPTY = 1.0  # nats: a rate too small for the label of one of three classes
LITTLE = 0.1  # of the fusion's accuracy
SKIPPED = 0.01  # of the optimiser steps; a scale that has settled skips one in 2000
LEAK = 0.05  # of accuracy, after two standard errors were taken off
AROUND_ONE = 0.25  # of its extremes over a batch


def check(epochs: Epochs, *, final: bool) -> dict[str, float]:
    """`health/<warning>` of the last of `epochs`, 1 or 0, of the rules that apply to it.

    `final`: it is the run's last one, so that rules over the whole run apply.
    """
    found = {
        name: warning.rule(epochs)
        for name, warning in WARNINGS.items()
        if final or not warning.over_the_run
    }
    return {metrics.HEALTH + k: float(holds) for k, holds in found.items() if holds is not None}


def of_result(values: Metrics) -> dict[str, float]:
    """`health/<warning>` of the numbers that are logged once, at the end of a run."""
    holds = validation_at_chance([values])
    return {} if holds is None else {f"{PREFIX}{validation_at_chance.__name__}": float(holds)}


def fired(epochs: Epochs) -> list[str]:
    """The warnings that `check` gave to any of the epochs, in the order of their first."""
    names = [
        key.removeprefix(metrics.HEALTH)
        for epoch in epochs
        for key, value in epoch.items()
        if key.startswith(metrics.HEALTH) and value
    ]
    return list(dict.fromkeys(names))


# Rules --------------------------------------------------------------------------------------


def synergy_at_chance(epochs: Epochs) -> bool | None:
    """The fusion that the B-Step will use is not shown to be better than guessing: its accuracy
    is within two standard errors of it."""
    now = epochs[-1]
    if metrics.SYNERGY_RESTORED not in now or metrics.SYNERGY_CHANCE not in now:
        return None
    return now[metrics.SYNERGY_RESTORED] <= now[metrics.SYNERGY_CHANCE]


def tokens_carry_little(epochs: Epochs) -> bool | None:
    """The fusion that the B-Step will use keeps nine tenths of its accuracy with the teachers'
    tokens of another image: it repeats its query, which is the student's own."""
    share = epochs[-1].get(metrics.SYNERGY_TOKEN_SHARE)
    return None if share is None or synergy_at_chance(epochs) else share < LITTLE


def query_leaks(epochs: Epochs) -> bool | None:
    """On training images the fusion owes its query more accuracy than on validation images: the
    student knows the training images by heart, and its query carries their labels."""
    leak = epochs[-1].get(metrics.SYNERGY_QUERY_LEAK)
    return None if leak is None else leak > LEAK


def validation_at_chance(epochs: Epochs) -> bool | None:
    """The network of a run, a teacher or a student, is not shown to be better than guessing."""
    now = epochs[-1]
    if metrics.BEST_VAL_TOP1 not in now or metrics.VAL_CHANCE not in now:
        return None
    return now[metrics.BEST_VAL_TOP1] <= now[metrics.VAL_CHANCE]


def gate_never_open(epochs: Epochs) -> bool | None:
    """The gate was closed at every reading of the run."""
    readings = _readings(epochs)
    return not any(readings) if readings else None


def gate_always_open(epochs: Epochs) -> bool | None:
    """The gate was open at every reading, of several."""
    readings = _readings(epochs)
    return all(readings) if len(readings) > 1 else None


def sigma_at_one(epochs: Epochs) -> bool | None:
    """The latent's standard deviation is the prior's, and its mean carries little information."""
    now = epochs[-1]
    if metrics.SIGMA_MEAN not in now:
        return None
    low, high = now[metrics.SIGMA_MIN], now[metrics.SIGMA_MAX]
    flat = low >= 1 - AROUND_ONE and high <= 1 + AROUND_ONE
    empty = now.get(metrics.RATE, 0.0) <= EMPTY
    return flat and empty and abs(now[metrics.SIGMA_MEAN] - 1) <= NEAR


def sigma_at_floor(epochs: Epochs) -> bool | None:
    """The latent's standard deviation is at its least value: nothing is random."""
    now = epochs[-1]
    if metrics.SIGMA_MEAN not in now or metrics.SIGMA_FLOOR not in now:
        return None
    return now[metrics.SIGMA_MEAN] <= (1 + NEAR) * now[metrics.SIGMA_FLOOR]


def kd_negligible(epochs: Epochs) -> bool | None:
    """The distillation term is under 1 % of the labels' term, or its weight was
    never above 0. It does not apply where a schedule holds the weight below half of its largest
    value so far."""
    now = epochs[-1]
    terms = {k: v for k, v in now.items() if k.startswith(metrics.LOSS) and k != metrics.LOSS_TOTAL}
    ce = terms.pop(metrics.LOSS_CE, 0.0)
    weight = now.get(metrics.KD_WEIGHT, math.inf)
    largest = max(epoch.get(metrics.KD_WEIGHT, 0.0) for epoch in epochs)
    if now.get(metrics.STAGE_STEP) != 1.0 or ce <= 0:
        return None
    if metrics.KD_WEIGHT in now and largest == 0:
        return True
    if not terms or weight < 0.5 * largest:
        return None
    return sum(terms.values()) < NEGLIGIBLE * ce


def weight_constant(epochs: Epochs) -> bool | None:
    """The per-sample weight of the distillation term is the same for all samples."""
    spread = epochs[-1].get(metrics.KD_WEIGHT_SPREAD)
    return None if spread is None else spread < SPREAD


def adapter_without_gradient(epochs: Epochs) -> bool | None:
    """An adapter of the fusion does not learn."""
    return _stuck(epochs[-1], metrics.ADAPTER_GRAD)


def module_without_gradient(epochs: Epochs) -> bool | None:
    """A part of the fusion module, or a module of the method itself, does not learn."""
    return _stuck(epochs[-1], metrics.FUSION_GRAD, metrics.KD_MODULE_GRAD)


def steps_skipped(epochs: Epochs) -> bool | None:
    """More than one in a hundred optimiser steps were skipped in float16, not counting those of the
    first epoch, in which the scale of the loss is found."""
    shares = [epoch[metrics.SKIPPED] for epoch in epochs if metrics.SKIPPED in epoch][1:]
    return sum(shares) > SKIPPED * len(shares) if shares else None


def freezing_not_as_asked(epochs: Epochs) -> bool | None:
    """The share of parameters that got gradients is not the requested one."""
    now, end = epochs[-1], "_requested"
    pairs = [(now[k], now.get(k.removesuffix(end), 0.0)) for k in now if k.endswith(end)]
    return any(abs(requested - real) > 1e-9 for requested, real in pairs) if pairs else None


def non_finite(epochs: Epochs) -> bool | None:
    """A metric is not a finite number."""
    return not all(math.isfinite(value) for value in epochs[-1].values())


class HealthWarning(NamedTuple):
    """A health warning. `over_the_run`: the rule is checked once, at the end of the run."""

    rule: Rule
    advice: str
    over_the_run: bool = False


WARNINGS: dict[str, HealthWarning] = {
    "synergy_at_chance": HealthWarning(
        synergy_at_chance,
        "The fusion that teaches the student is not shown to be better than guessing: its accuracy "
        "is at most that of guessing plus two standard errors, which are large where val/images is "
        "small. Try a larger method.a_lr, more budget.adapt_epochs, a smaller method.ib_beta, or a "
        "larger data.val_fraction.",
    ),
    "tokens_carry_little": HealthWarning(
        tokens_carry_little,
        "The fusion repeats the student: with the teachers' features of another image it loses "
        "less than a tenth of its accuracy (synergy/token_share), so its gain over the teachers "
        "is the student's own knowledge (compare synergy/gain_student). Try teachers that know "
        "more than the student, method.w_kd=0 with method.cccp_alpha=0, a larger method.a_lr or "
        "fewer method.num_stages.",
    ),
    "query_leaks": HealthWarning(
        query_leaks,
        "The fusion trusts the student's query more than it should: on training images, which the "
        "student knows by heart, the query gives it accuracy that it has not on validation images "
        "(synergy/query_leak; compare synergy/train_top1 with synergy/restored). Try "
        "method.query=none, method.query_dropout, or more labelled images.",
    ),
    "validation_at_chance": HealthWarning(
        validation_at_chance,
        "The network's validation accuracy is not shown to be better than guessing (val/chance, "
        "with two standard errors). Of a teacher given as a file: another file, normalisation "
        "(data.mean, data.std) or order of the classes? Of a trained network: more epochs, another "
        "learning rate, or, where val/images is small, a larger data.val_fraction.",
        over_the_run=True,
    ),
    "gate_never_open": HealthWarning(
        gate_never_open,
        "The gate was closed in every stage: the fusion never taught the student, the teachers' "
        "average did. Look at synergy/restored; try more budget.adapt_epochs or a lower "
        "bench.enable_kd_after_syn_acc.",
        over_the_run=True,
    ),
    "gate_always_open": HealthWarning(
        gate_always_open,
        "The gate was open in every stage, so it decided nothing. That is fine where synergy/gain"
        " is above 0, or below it by no more than a few of the val/images; else set "
        "bench.enable_kd_after_syn_acc to the validation accuracy of the best teacher.",
        over_the_run=True,
    ),
    "sigma_at_one": HealthWarning(
        sigma_at_one,
        "The latent's standard deviations are near 1, those of its prior: its rate shows whether "
        "its mean carries information. Try a smaller method.ib_beta, and leave "
        "method.a_step_sample on.",
    ),
    "sigma_at_floor": HealthWarning(
        sigma_at_floor,
        "The standard deviations of the latent are at their least value: nothing is sampled. Try "
        "a larger method.ib_beta, or lower method.min_std and raise method.logvar_clip.",
    ),
    "kd_negligible": HealthWarning(
        kd_negligible,
        "The distillation term is under 1 % of the labels' term. Try a larger "
        "weight (method.kd_alpha of the rungs, method.weight of other methods), another "
        "method.tau, or better teachers.",
    ),
    "weight_constant": HealthWarning(
        weight_constant,
        "The weight of the distillation term is the same for all samples."
        " Try other values of it, or switch it off (method.kd_uncertainty_weight=0).",
    ),
    "adapter_without_gradient": HealthWarning(
        adapter_without_gradient,
        "An adapter of the fusion does not learn: features pass through a random projection. Set "
        "method.adapt to adapters or backbone; a method.loss_clamp=hard that is always reached "
        "stops gradients too.",
    ),
    "module_without_gradient": HealthWarning(
        module_without_gradient,
        "A part of the fusion module, or an own module of the method, gets no gradient. Leave "
        "method.a_step_sample on, and look for a weight of 0 among the terms.",
    ),
    "steps_skipped": HealthWarning(
        steps_skipped,
        "More than 1 % of the optimiser steps were skipped, because their gradients were too large "
        "for float16 (train/skipped). Try numerics=bfloat16 where the GPU has it (Ampere and "
        "later), numerics=float32, or a smaller learning rate (optim.lr, method.a_lr).",
        over_the_run=True,
    ),
    "freezing_not_as_asked": HealthWarning(
        freezing_not_as_asked,
        "The share of parameters that learn is not the requested one: compare "
        "stage/student_trainable and teacher<k>/trainable with …_requested, and look at the "
        "blocks of the network (method.student_levels, method.teacher_levels).",
    ),
    "non_finite": HealthWarning(
        non_finite,
        "A value was not a finite number. Try a smaller learning rate (optim.lr, method.a_lr) or "
        "numerics=float32.",
    ),
}


def _readings(epochs: Epochs) -> list[bool]:
    return [epoch[metrics.GATE] > 0 for epoch in epochs if metrics.GATE in epoch]


def _stuck(now: Metrics, *keys: str) -> bool | None:
    norms = [now[key] for key in keys if key in now]
    return min(norms) <= NO_GRADIENT if norms else None
