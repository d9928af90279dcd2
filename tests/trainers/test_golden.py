"""The numbers of today's numerics are those that the stored versions stand for."""

import itertools
import json
from typing import Any

import pytest

from tests.trainers import golden, tiny
from trainers.distill import DISTILL_VERSION
from trainers.finetune import FINETUNE_VERSION

TOLERANCE = 3e-4  # relative: other kernels and thread counts stay below half of it
ANEW = "write the trajectories anew: python -m tests.trainers.golden"
VERSIONS = {
    "finetune": "FINETUNE_VERSION",
    "distill": "DISTILL_VERSION",
    "methods": "DISTILL_VERSION",
}
CASES = [
    ("finetune", "teacher 0"),
    ("finetune", "teacher 1"),
    *(("distill", c) for c in tiny.RUNGS),
    *(("methods", name) for name in golden.BASELINES),
]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads(golden.FILE.read_text())


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return golden.trajectories()


def test_the_stored_trajectories_are_of_the_present_versions(stored: dict[str, Any]) -> None:
    for name, version in (
        ("FINETUNE_VERSION", FINETUNE_VERSION),
        ("DISTILL_VERSION", DISTILL_VERSION),
    ):
        assert stored[name] == version, f"{name} was changed: {ANEW}"


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_the_numbers_have_not_changed(
    stage: str, name: str, stored: dict[str, Any], found: dict[str, Any]
) -> None:
    want, got = stored[stage][name], found[stage][name]
    if len(want) == len(got) and got == pytest.approx(want, rel=TOLERANCE):
        return
    step = next(
        (
            i
            for i, (a, b) in enumerate(zip(got, want, strict=False))
            if a != pytest.approx(b, rel=TOLERANCE)
        ),
        min(len(got), len(want)),
    )
    pytest.fail(
        f"the losses of {stage} ({name}) have changed from step {step} on:\n"
        f"  were {want[step : step + 4]}\n  are  {got[step : step + 4]}\n"
        f"Results stored under the present {VERSIONS[stage]} would be mixed up with new ones. If "
        f"the change is meant, raise {VERSIONS[stage]} (the other one too, if its numbers move) "
        f"and {ANEW}"
    )


def test_trajectories_are_long_enough_to_tell_the_rungs_apart(stored: dict[str, Any]) -> None:
    """A factor that left no trace in its trajectory would not be pinned by it."""
    distill = stored["distill"]
    lengths = {cfg: len(distill[cfg]) for cfg in tiny.RUNGS}
    short = ("CE", "KD", "KD_null")
    assert lengths == {c: 8 if c in short else golden.STEPS for c in tiny.RUNGS}
    for rung, other in itertools.combinations(tiny.RUNGS, 2):
        steps = zip(distill[rung][-8:], distill[other][-8:], strict=True)
        assert max(abs(a - b) / b for a, b in steps) > 5 * TOLERANCE


def test_no_two_methods_have_the_same_trajectory(stored: dict[str, Any]) -> None:
    methods = stored["methods"]
    assert {len(losses) for losses in methods.values()} == {8}
    for one, other in itertools.combinations(methods, 2):
        steps = zip(methods[one], methods[other], strict=True)
        assert max(abs(a - b) / b for a, b in steps) > 5 * TOLERANCE
