"""Placebos take the information out and leave everything else as it is."""

from pathlib import Path

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.distillation import placebos
from trainers.distillation.state import StepInputs
from trainers.tables import MappedTable


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("images", "views"), [(2, 1), (7, 3), (40, 4)])
def test_every_row_gets_another_image_of_the_same_view(images: int, views: int) -> None:
    other = placebos.other_images(images, views, draw())
    rows = torch.arange(images * views)
    assert torch.equal(other.sort().values, rows)
    assert torch.equal(other % views, rows % views)
    assert (other // views != rows // views).all()
    assert not torch.equal(other, placebos.other_images(images, views, draw(1))) or images == 2


@pytest.mark.parametrize("views", [1, 3])
def test_every_row_gets_another_image_of_its_class(views: int) -> None:
    labels = torch.tensor([0, 2, 2, 0, 2, 0, 4, 4, 0])  # no image of classes 1 and 3
    other = placebos.others_of_class(labels, views, draw())
    rows = torch.arange(len(labels) * views)
    assert torch.equal(other.sort().values, rows)
    assert torch.equal(other % views, rows % views)
    assert (other // views != rows // views).all()
    assert torch.equal(labels[other // views], labels[rows // views])


def test_a_class_of_one_image_has_no_other() -> None:
    with pytest.raises(ValueError, match="no other image of class 2"):
        placebos.others_of_class(torch.tensor([0, 0, 2, 1, 1]), 1, draw())


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_labels_logit_stays_and_the_rest_is_shuffled_alike(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placebos, "CHUNK", 16)  # more than one pass
    torch.manual_seed(0)
    one, labels = torch.randn(50, classes), torch.randint(classes, (50,))
    tables = torch.stack([one, one * 2])
    order = torch.cat([*placebos.orders(50, classes, draw())]).long()
    shuffled = placebos.shuffled_rest(tables, labels, order)
    for table, found in zip(tables, shuffled, strict=True):
        assert torch.equal(found.gather(1, labels[:, None]), table.gather(1, labels[:, None]))
        assert torch.equal(found.sort(1).values, table.sort(1).values)
    assert torch.equal(shuffled[1], shuffled[0] * 2)  # the same shuffle for every teacher
    moved = (shuffled[0] != tables[0]).float().mean()
    assert (moved == 0) == (classes == 2)  # with two classes there is nothing to shuffle


def test_the_order_of_classes_is_mapped_where_the_banks_are(world: World, tmp_path: Path) -> None:
    c, rows = tiny.rung("KD_null"), torch.arange(400)
    found = []
    for there in (world, tiny.with_mapped_banks(world, tmp_path)):
        state = tiny.new_state(c, there)
        inputs = StepInputs.prepare(c, there.data, there.teachers, state)
        placebo = placebos.of_stage(inputs, state.method, 0)
        assert placebo is not None
        assert placebo.order is not None
        found.append(placebo)
    held, mapped = (placebo.order for placebo in found)
    assert isinstance(held, torch.Tensor)
    assert isinstance(mapped, MappedTable)
    assert held.dtype == mapped.dtype == torch.int16
    assert torch.equal(mapped[rows], held)
    logits, labels = torch.randn(2, 400, 10), torch.arange(400) % 10
    one, other = (placebo.shuffled(logits, labels, rows) for placebo in found)
    assert torch.equal(one, other)
