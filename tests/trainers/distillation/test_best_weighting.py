"""Several teachers in a control: all of them where they know different classes, weighted as their
validation images say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.config import compose
from pipeline.identity import identity, run_key
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import Images, TrainingData
from trainers.distillation.state import DistillState, Teacher, best_weighting
from trainers.methods.base import Method, TeacherOutputs
from trainers.view_bank import Bank, ViewOutputs

LABELS = torch.tensor([0, 1])
ALL = ["bench=digits_all"]  # whose teachers know all classes


def two_teachers(logits_KMC: list) -> tuple[TrainingData, list[Teacher]]:
    """Teachers with these logits for two validation images of classes 0 and 1, of three classes."""
    images = Images(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), LABELS, "digest")

    def teacher(logits_MC: list[list[float]]) -> Teacher:
        out = ViewOutputs(torch.tensor(logits_MC), torch.zeros(2, 1))
        return Teacher(nn.Identity(), Bank(out, out))

    return TrainingData(images, images), [teacher(one) for one in logits_KMC]


@pytest.mark.parametrize(
    ("logits_KMC", "expected"),
    [
        ([[[2.0, 0, 0], [0, 2.0, 0]]] * 2, "equal"),  # of equals the simplest
        (
            [[[-1.5, -4.6, -2.0], [2.6, -1.3, -1.7]], [[-1.6, -1.8, -0.6], [-3.6, 1.7, -0.5]]],
            "entropy",
        ),
        (
            [[[4.3, -1.6, 0.1], [-1.0, 2.5, 1.9]], [[-5.9, -0.3, 0.0], [4.5, 2.3, -3.8]]],
            "confidence",
        ),
    ],
)
def test_the_weighting_with_the_best_validation_accuracy_is_chosen(
    logits_KMC: list, expected: str
) -> None:
    data, teachers = two_teachers(logits_KMC)
    assert best_weighting(data, teachers) == expected
    assert best_weighting(data, teachers[:1]) == "equal"
    nothing = data._replace(val=Images(data.val.pixels[:0], data.val.labels[:0], "none"))
    assert best_weighting(nothing, teachers) == "equal"


@pytest.mark.parametrize("method", ["kd", "dkd", "fitnet", "crd"])
def test_teachers_that_know_different_classes_are_all_used(method: str) -> None:
    plain, apart = (compose([*ALL, f"method={method}", *more]) for more in ([], ["overlap=0"]))
    assert plain.method.teacher == "best"
    assert apart.method.teacher == "avg"
    given = compose([*ALL, f"method={method}", "overlap=0", "method.teacher=best"])
    assert given.method.teacher == "best"
    named = compose([*ALL, f"method={method}", "method.teacher=best"])
    assert run_key("distill", named) == run_key("distill", plain)


def test_the_classes_of_one_teacher_are_enough() -> None:
    config = compose([*ALL, "method=kd", "teacher.1.classes=[0,1,2]"])
    assert (config.method.teacher, config.method.weighting) == ("avg", "validation")


def test_equal_weights_are_no_other_experiment_where_teachers_know_all() -> None:
    found = identity("distill", compose([*ALL, "method=kd", "method.teacher=avg"]))
    assert found["config"]["method"]["weighting"] == "equal"


def test_the_chosen_weighting_is_the_target(world: World) -> None:
    def method(weighting: str) -> Method:
        config = tiny.baseline("kd", "method.teacher=avg", f"method.weighting={weighting}")
        return DistillState.new(config, world.data, world.teachers).method

    logits_KBC, chosen = torch.randn(2, 5, 10), method("validation")
    assert chosen.dims.best_weighting == best_weighting(world.data, world.teachers)
    found = []
    for weighting in ("equal", "entropy", "confidence"):
        chosen.dims = chosen.dims._replace(best_weighting=weighting)
        found.append(chosen.teacher_logits(TeacherOutputs(logits_KBC)))
        fixed = method(weighting).teacher_logits(TeacherOutputs(logits_KBC))
        assert torch.equal(found[-1], fixed)
    assert not torch.equal(found[0], found[1])
