"""The numerics still give the stored trajectories, which the version numbers stand for.

Two processors round differently. From the same view banks their trajectories agree to 1e-5. But a
bank holds the teachers' outputs in half precision: a teacher that differs by 1e-7 has 1 to 5 % of
its entries rounded to the other neighbour, up to 5e-4 away, so the student's input really differs.
Most methods average that out. `kd_ls` divides logits by their standard deviation (here 0.16) and
weighs the divergence 36-fold, so its losses differ by up to 7e-4. The arithmetic is sound; one
tolerance for all trajectories was too narrow for this one.

So the first steps, where a changed formula shows, are always compared within TOLERANCE. Where a
later step differs by more, the effect of rounding on that trajectory is measured, and only what
exceeds MARGIN times that effect is a change.
"""

import itertools
import json
from typing import Any

import pytest

from tests.trainers import golden
from trainers.distill import DISTILL_VERSION
from trainers.finetune import FINETUNE_VERSION

TOLERANCE = 3e-4  # relative: other kernels and thread counts stay below half of it
EXACT_STEPS = 2  # first steps that are always compared within TOLERANCE
MARGIN = 3  # of the effect of rounding, which is measured on a few random perturbations
REWRITE = "rewrite the trajectories: python -m tests.trainers.golden"
VERSIONS = {
    "finetune": "FINETUNE_VERSION",
    "distill": "DISTILL_VERSION",
    "methods": "DISTILL_VERSION",
}
CASES = [
    ("finetune", "teacher 0"),
    ("finetune", "teacher 1"),
    *(("distill", c) for c in golden.RUNGS),
    *(("methods", name) for name in golden.BASELINES),
]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(golden.FILE.read_text())


@pytest.fixture(scope="module")
def start() -> golden.Start:
    return golden.start()


def test_the_stored_trajectories_are_of_the_present_versions(stored: dict[str, Any]) -> None:
    for name, version in (
        ("FINETUNE_VERSION", FINETUNE_VERSION),
        ("DISTILL_VERSION", DISTILL_VERSION),
    ):
        assert stored[name] == version, f"{name} was changed: {REWRITE}"


def changed_step(got: list[float], want: list[float], allowed: list[float]) -> int | None:
    """The first step that differs by more than the allowed share of it."""
    steps = zip(got, want, allowed, strict=True)
    return next((i for i, (a, b, share) in enumerate(steps) if abs(a - b) > share * abs(b)), None)


def tolerances(overrides: list[str], start: golden.Start) -> list[float]:
    """Of each step: TOLERANCE, or the effect of rounding where that is larger."""
    effect = golden.rounding_effect(overrides, start.world)
    return [
        TOLERANCE if i < EXACT_STEPS else max(TOLERANCE, MARGIN * x) for i, x in enumerate(effect)
    ]


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_the_numbers_have_not_changed(
    stage: str, name: str, stored: dict[str, Any], start: golden.Start
) -> None:
    want = stored[stage][name]
    if stage == "finetune":
        got = start.losses[name]
    else:
        got = golden.step_losses(golden.overrides_of(stage, name), start.world)
    assert len(got) == len(want)
    step = changed_step(got, want, [TOLERANCE] * len(want))
    if step is not None and stage != "finetune":
        step = changed_step(got, want, tolerances(golden.overrides_of(stage, name), start))
    if step is not None:
        pytest.fail(
            f"the losses of {stage} ({name}) have changed from step {step} on:\n"
            f"  were {want[step : step + 4]}\n  are  {got[step : step + 4]}\n"
            f"Results stored under the present {VERSIONS[stage]} would be mixed up with new ones. "
            f"If the change is meant, raise {VERSIONS[stage]} (the other one too, if its numbers "
            f"move) and {REWRITE}"
        )


def test_small_changes_exceed_the_effect_of_rounding(start: golden.Start) -> None:
    """kd_ls, which rounding moves most: 1 % of weight or temperature, 5 % of the learning rate."""
    overrides = golden.of_method("kd_ls")
    want = golden.step_losses(overrides, start.world)
    allowed = tolerances(overrides, start)
    for change in ("method.weight=9.09", "method.tau=2.02", "optim.lr=1.05e-3"):
        got = golden.step_losses([*overrides, change], start.world)
        assert changed_step(got, want, allowed) is not None, change


def test_trajectories_are_long_enough_to_tell_the_rungs_apart(stored: dict[str, Any]) -> None:
    """A factor that left no trace in its trajectory would not be pinned by it."""
    distill = stored["distill"]
    lengths = {cfg: len(distill[cfg]) for cfg in golden.RUNGS}
    short = ("CE", "KD", "KD_null", "self", "stack")
    assert lengths == {c: 8 if c in short else golden.STEPS for c in golden.RUNGS}
    for rung, other in itertools.combinations(golden.RUNGS, 2):
        steps = zip(distill[rung][-8:], distill[other][-8:], strict=True)
        assert max(abs(a - b) / b for a, b in steps) > 5 * TOLERANCE


def test_no_two_methods_have_the_same_trajectory(stored: dict[str, Any]) -> None:
    methods = stored["methods"]
    assert {len(losses) for losses in methods.values()} == {8}
    for one, other in itertools.combinations(methods, 2):
        steps = zip(methods[one], methods[other], strict=True)
        assert max(abs(a - b) / b for a, b in steps) > 5 * TOLERANCE
