"""What the teachers know before anything is distilled."""

import pytest
import torch

from tests.trainers.tiny import World
from trainers import metrics, stacking
from trainers.data import Images, TrainingData
from trainers.distillation import room as module
from trainers.distillation.room import room
from trainers.distillation.state import Teacher
from trainers.loop import top1
from trainers.view_bank import Bank, ViewOutputs


def test_specialists_know_more_together_than_their_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each teacher's feature tells whether an image is of its class; its logits know only its own
    half of the classes, and are as sure on the other half."""
    draw = torch.Generator().manual_seed(0)
    views = 3

    def some(count: int, repeat: int) -> tuple[Images, list[ViewOutputs]]:
        labels = torch.arange(count) % 4
        seen = labels.repeat_interleave(repeat)
        rows = []
        for k in (0, 1):
            mine = (seen // 2 == k).float()
            own = torch.nn.functional.one_hot(seen, 4) * mine[:, None]
            guess = torch.randint(2, (len(seen),), generator=draw) + 2 * k
            sure = torch.nn.functional.one_hot(torch.where(mine > 0, seen, guess), 4) * 9.0
            rows.append(ViewOutputs(sure.half(), own.half()))
        return Images(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), labels, "x"), rows

    (train, of_train), (val, of_val) = some(80, views), some(40, 1)
    teachers = [
        Teacher(torch.nn.Identity(), Bank(a, b)) for a, b in zip(of_train, of_val, strict=True)
    ]
    data = TrainingData(train, val)
    found = room(data, teachers, views=views, classes=4, weights=None)
    assert found[metrics.ROOM_BEST_TEACHER] == pytest.approx(0.5)
    assert found[metrics.ROOM_AVERAGE] < 0.7
    assert found[metrics.ROOM_STACK] == 1.0
    assert found == room(data, teachers, views=views, classes=4, weights=None)
    first = room(data, teachers, views=views, classes=4, weights=[1.0, 0.0])
    assert first[metrics.ROOM_AVERAGE] == pytest.approx(0.5)
    # Of many images some are taken, of every class.
    monkeypatch.setattr(module, "IMAGES", 27)
    assert room(data, teachers, views=views, classes=4, weights=None)[metrics.ROOM_STACK] == 1.0


def test_it_is_that_of_the_banks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = room(world.data, world.teachers, views=2, classes=10, weights=None)
    labels = world.data.val.labels
    each = [top1(t.bank.val.logits, labels) for t in world.teachers]
    assert found[metrics.ROOM_BEST_TEACHER] == max(each)
    banks = [t.bank for t in world.teachers]
    stack = stacking.fit(
        stacking.stacked([bank.train.pooled[::2] for bank in banks]),
        world.data.train.labels,
        stacking.stacked([bank.val.pooled for bank in banks]),
        labels,
        10,
        steps=module.STEPS,
    )
    assert found[metrics.ROOM_STACK] == stack.val_top1
    fresh = room(world.data, world.teachers, views=0, classes=10, weights=None)
    assert fresh.keys() == {metrics.ROOM_BEST_TEACHER, metrics.ROOM_AVERAGE}
    monkeypatch.setattr(module, "LARGEST", 10 * sum(bank.width for bank in banks) - 1)
    assert room(world.data, world.teachers, views=2, classes=10, weights=None) == fresh


def test_without_teachers_or_validation_there_is_none(world: World) -> None:
    assert room(world.data, [], views=2, classes=10, weights=None) == {}
    none = world.data.val._replace(
        pixels=world.data.val.pixels[:0], labels=world.data.val.labels[:0]
    )
    empty = world.data._replace(val=none)
    assert room(empty, world.teachers, views=2, classes=10, weights=None) == {}
