"""The view bank against live forward passes."""

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import models, view_bank
from trainers.data import Images
from trainers.data.views import Normaliser, Views
from trainers.loop import top1
from trainers.view_bank import ViewOutputs, assemble, image_outputs, view_outputs

CPU = torch.device("cpu")


def net() -> nn.Module:
    torch.manual_seed(0)
    model = models.build("resnet8", 10, 8, in_chans=1)
    for module in model.modules():  # statistics that make evaluation differ from training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def test_a_bank_holds_the_outputs_of_live_forward_passes(world: World) -> None:
    c = tiny.compose("KD")
    v = Views(world.data.train, c.data, c.numerics)
    rows = torch.randperm(v.rows, generator=torch.Generator().manual_seed(0))[:77]
    for teacher in world.teachers:
        with torch.no_grad():
            live = models.outputs(teacher.model, v.batch(rows))
        banked = teacher.bank.train.at(rows)
        assert banked.logits.dtype == banked.pooled.dtype == torch.float32
        torch.testing.assert_close(banked.logits, live.logits, rtol=2**-10, atol=1e-5)
        torch.testing.assert_close(banked.pooled, live.pooled, rtol=2**-10, atol=1e-5)
        assert len(teacher.bank.train.logits) == 200 * 2
        assert teacher.bank.train.logits.dtype == torch.half


def test_the_teachers_of_the_tiny_world_have_learned(world: World) -> None:
    for teacher in world.teachers:
        accuracy = top1(teacher.bank.train.logits, world.data.train.labels.repeat_interleave(2))
        assert accuracy > 0.4
    one, other = (teacher.bank.train.logits for teacher in world.teachers)
    assert not torch.equal(one, other)


def test_image_outputs_are_of_whole_images_in_float32(world: World, monkeypatch) -> None:
    monkeypatch.setattr(view_bank, "BANK_CHUNK", 7)
    c, model = tiny.compose("KD"), net().train()
    normalise = Normaliser(c.data, c.numerics, CPU)
    found = image_outputs(model, world.data.val, normalise, c.numerics)
    assert model.training
    model.eval()
    want = models.outputs(model, normalise(world.data.val.pixels))
    torch.testing.assert_close(found.logits, want.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled, want.pooled, rtol=1e-4, atol=1e-5)
    assert not found.logits.requires_grad


def test_no_images_give_no_outputs(world: World) -> None:
    c = tiny.compose("KD")
    empty = Images(world.data.val.pixels[:0], world.data.val.labels[:0], "empty")
    found = image_outputs(net(), empty, Normaliser(c.data, c.numerics, CPU), c.numerics)
    assert found.logits.shape == (0, 10)
    assert found.pooled.shape == (0, 64)


@pytest.mark.parametrize("training", [False, True])
def test_an_interrupted_bank_resumes(training: bool, world: World, monkeypatch) -> None:
    monkeypatch.setattr(view_bank, "BANK_CHUNK", 64)
    c, model = tiny.compose("KD"), net().train(training)
    before = tiny.clone(model)
    v = Views(world.data.train, c.data, c.numerics)
    whole = list(view_outputs(model, v, c.numerics))
    assert [len(part.logits) for part in whole] == [64] * 6 + [16]
    for start in (1, 4, 6, 7):
        rest = list(view_outputs(model, v, c.numerics, start=start))
        assert tiny.differences(rest, whole[start:]) == []
    assert model.training == training
    assert tiny.differences(before, model.state_dict()) == []


def part(rows: int, value: float = 0.0) -> ViewOutputs:
    return ViewOutputs(torch.full((rows, 3), value).half(), torch.full((rows, 2), -value).half())


def test_a_table_is_its_parts_one_after_the_other() -> None:
    table = assemble(iter([part(2, 1.0), part(3, 2.0)]), 5, CPU)
    assert table.logits[:, 0].tolist() == [1, 1, 2, 2, 2]
    assert table.pooled[:, 1].tolist() == [-1, -1, -2, -2, -2]
    assert table.logits.shape == (5, 3)


@pytest.mark.parametrize("sizes", [[], [4], [2, 2], [3, 3], [5, 1], [5, 5, 5], [6]])
def test_parts_that_do_not_make_up_the_table_are_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="a table of"):
        assemble(iter([part(size) for size in sizes]), 5, CPU)
