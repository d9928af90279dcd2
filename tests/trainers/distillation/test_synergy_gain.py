"""What a fusion owes its query, on training and on validation images, for fusions with planted
trust in it.

Shapes: N images, C classes.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import health, metrics
from trainers.distillation.a_step import AStep
from trainers.distillation.state import StepInputs
from trainers.distillation.synergy_gain import Read, excess, query_and_tokens
from trainers.methods.alternating import AlternatingMethod, Synergy
from trainers.methods.base import Dims, StepPosition
from trainers.view_bank import ViewOutputs

C = 10


class Options:
    synergy_eval_teacher_indices = None


class Planted(AlternatingMethod):
    """Adds up the features: `trust` times those of the student, and those of the teacher."""

    def __init__(self, trust: float) -> None:
        super().__init__(Options(), Dims(C, (C,), C))
        self.trust = trust

    @property
    def reads_query(self) -> bool:
        return self.trust > 0

    def synergy(self, query_BD: Any, teachers: Any, pooled: list[Tensor], **_: Any) -> Synergy:
        return Synergy(self.trust * query_BD + pooled[0], None)


def read(count: int, student: float, teacher: float, seed: int) -> Read:
    """Images of which student and teacher know the label of these shares; else they guess."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % C

    def known(share: float) -> ViewOutputs:
        guess = torch.randint(C, (count,), generator=draw)
        found = torch.where(torch.rand(count, generator=draw) < share, labels, guess)
        rows = torch.nn.functional.one_hot(found, C).half()
        return ViewOutputs(rows, rows)

    return Read(known(student), [known(teacher)], labels)


@pytest.mark.parametrize(
    ("case", "trust", "train", "val", "warned"),
    [
        ("the student knows the training images by heart", 1.5, (200, 1.0, 0.7), 0.7, True),
        ("so do the teachers, and the fusion trusts them", 0.9, (200, 1.0, 1.0), 0.7, False),
        ("the student knows as much of all images", 1.5, (200, 0.8, 0.7), 0.8, False),
        ("no query", 0.0, (200, 1.0, 0.9), 0.7, None),
    ],
)
def test_a_leak_is_what_the_query_knows_of_training_images_alone(
    case: str, trust: float, train: tuple[int, float, float], val: float, warned: bool | None
) -> None:
    for seed in range(20):
        images = read(1000, val, 0.7, seed + 100)
        method = Planted(trust)
        restored = float((method.synergy(*_inputs(images)).logits.argmax(1) == images.labels).sum())
        found = query_and_tokens(method, images, read(*train, seed), restored / 1000, (0, 0))
        assert health.query_leaks([found]) is warned, (case, found)
        assert (metrics.SYNERGY_QUERY_SHARE in found) == (trust > 0)


def _inputs(images: Read) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    pooled = images.teachers[0].pooled.float()
    return images.student.pooled.float(), [pooled], [pooled]


def test_few_validation_images_seldom_show_a_leak_that_is_none() -> None:
    fired = 0
    for seed in range(200):
        train, val = read(200, 0.8, 0.7, seed), read(20, 0.8, 0.7, seed + 1000)
        found = query_and_tokens(Planted(1.5), val, train, 0.8, (0, seed))
        fired += bool(health.query_leaks([found]))
    assert fired <= 8  # two standard errors, and the threshold on top of them


def test_the_excess_is_the_difference_less_two_standard_errors() -> None:
    train, val = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0])
    noise = (0.75 * 0.25 / 4 + 0.25 / 2) ** 0.5
    assert excess(train, val) == pytest.approx(0.75 - 0.5 - 2 * noise)


@pytest.mark.parametrize("overrides", [[], ["data.views=0"], ["method.placebo=tokens"]])
@pytest.mark.parametrize("limit", [4096, 64])
def test_training_images_are_read_as_the_a_step_reads_them(
    overrides: list[str], limit: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.distillation.a_step.SAMPLE", limit)
    config = tiny.rung("L2", *overrides)
    state = tiny.new_state(config, world)
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    step = AStep(inputs, state, StepPosition(0, 2, 0, 0, 2), fresh=True)
    found = step._some_training_images()
    images = torch.arange(0, 200, 1 if limit == 4096 else 4)
    assert torch.equal(found.labels, world.data.train.labels[images])
    rows = images * inputs.views.count
    student = step._student(rows)
    teachers, _ = step._teachers(step.tokens.other(rows) if step.tokens else rows)
    torch.testing.assert_close(found.student.pooled, student.pooled, rtol=1e-4, atol=1e-5)
    for one, expected in zip(found.teachers, teachers, strict=True):
        torch.testing.assert_close(one.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.logits, expected.logits, rtol=1e-4, atol=1e-5)
