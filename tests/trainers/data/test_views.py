"""Clean views against a slow loop, and the view bank against live forward passes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import models
from trainers.data import DataConfig, Images, TrainingData, views
from trainers.data.views import Normaliser, Numerics, Rows, Views, assemble, image_rows, train_rows
from trainers.distillation.state import StepInputs
from trainers.loop import top1

CPU = torch.device("cpu")


def noise(count: int = 30, channels: int = 2, size: int = 5, digest: str = "a") -> Images:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, channels, size, size), generator=draw, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, digest)


def config(**options: object) -> DataConfig:
    given = {"image_size": 5, "channels": 2, "mean": [0.4, 0.6], "std": [0.2, 0.3], "views": 8}
    return DataConfig(**(given | options))


def crops_of(image_CHW: np.ndarray, pad: int, mode: str, flips: bool) -> dict[bytes, tuple]:
    """Every crop of one image, one after the other: bytes → (dy, dx, flipped)."""
    size = image_CHW.shape[1]
    padded = np.stack([np.pad(channel, pad, mode=mode) for channel in image_CHW])
    found = {}
    for dy in range(2 * pad + 1):
        for dx in range(2 * pad + 1):
            crop = padded[:, dy : dy + size, dx : dx + size]
            found[crop.tobytes()] = (dy, dx, False)
            if flips:
                found[crop[:, :, ::-1].tobytes()] = (dy, dx, True)
    return found


def raw_pixels(batch_BCHW: Tensor, c: DataConfig) -> np.ndarray:
    """Undo the normalisation."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (c.mean, c.std))
    pixels = (batch_BCHW * std + mean) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-2
    return pixels.round().to(torch.uint8).contiguous().numpy()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_every_view_is_a_crop_of_its_image(pad: int, mode: str, flip: bool) -> None:
    images, c = noise(), config(crop_pad=pad, pad_mode=mode, flip=flip)
    v = Views(images, c, Numerics())
    pixels = raw_pixels(v.batch(torch.arange(v.rows)), c)
    drawn, offsets = [], 2 * pad + 1
    for row, crop in enumerate(pixels):
        crops = crops_of(images.pixels[row // 8].numpy(), pad, mode, flip)
        assert crop.tobytes() in crops
        drawn.append(crops[crop.tobytes()])
    if len(crops) < offsets**2 * (1 + flip):
        return  # reflected and flipped crops coincide: which one was drawn cannot be told
    dy, dx, flipped = (np.array(column) for column in zip(*drawn, strict=True))
    for column in (dy, dx):
        share = np.bincount(column, minlength=offsets) / len(column)
        assert np.abs(share - 1 / offsets).max() < 0.12
    assert flipped.mean() == pytest.approx(0.5 if flip else 0, abs=0.15)
    if pad:
        assert abs(np.corrcoef(dy, dx)[0, 1]) < 0.2


def test_normalised_pixels_are_the_formula() -> None:
    images, c = noise(3), config()
    got = Normaliser(c, Numerics(), CPU)(images.pixels)
    assert got.dtype == torch.float32
    for n, channel, y, x in np.ndindex(*images.pixels.shape):
        want = (int(images.pixels[n, channel, y, x]) / 255 - c.mean[channel]) / c.std[channel]
        assert float(got[n, channel, y, x]) == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_the_memory_format_moves_no_pixel(layout: str) -> None:
    numerics = Numerics(memory_format=layout)
    batch = Views(noise(), config(crop_pad=2), numerics).batch(torch.arange(20))
    assert batch.is_contiguous(memory_format=numerics.layout())
    other = Views(noise(), config(crop_pad=2), Numerics()).batch(torch.arange(20))
    assert torch.equal(batch, other)


def test_a_batch_is_its_rows_in_any_order() -> None:
    v = Views(noise(), config(crop_pad=2, flip=True), Numerics())
    rows = torch.tensor([17, 3, 3, 200, 0])
    together = v.batch(rows)
    for place, row in enumerate(rows):
        assert torch.equal(together[place], v.batch(row[None])[0])
    assert v.labels(rows).tolist() == [2, 0, 0, 5, 0]
    assert v.rows == 240


def test_views_depend_on_the_digest_and_the_view_seed() -> None:
    c = config(crop_pad=2, flip=True)
    every = torch.arange(240)

    def pictures(images: Images, **options: object) -> Tensor:
        return Views(images, config(crop_pad=2, flip=True, **options), Numerics()).batch(every)

    want = pictures(noise())
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(pictures(noise()), want)
    assert torch.equal(pictures(noise(), name="other", train_limit=9, val_fraction=0.3), want)
    assert not torch.equal(pictures(noise(digest="b")), want)
    assert not torch.equal(pictures(noise(), view_seed=1), want)
    assert c.view_seed == 0


def test_the_seed_of_a_run_does_not_move_the_views(world: World) -> None:
    def batch(seed: int) -> Tensor:
        c = tiny.rung("KD", f"seed={seed}")
        state = tiny.new_state(c, world)
        return StepInputs.prepare(c, world.data, world.teachers, state).views.batch(
            torch.arange(50)
        )

    assert torch.equal(batch(0), batch(7))


# The bank -----------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    model = models.build("resnet8", 10, 8, in_chans=1)
    for module in model.modules():  # statistics that make evaluation differ from training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def test_a_bank_is_what_live_forward_passes_say(world: World) -> None:
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


def test_the_teachers_of_these_tests_know_something(world: World) -> None:
    for teacher in world.teachers:
        accuracy = top1(teacher.bank.train.logits, world.data.train.labels.repeat_interleave(2))
        assert accuracy > 0.4
    one, other = (teacher.bank.train.logits for teacher in world.teachers)
    assert not torch.equal(one, other)


def test_image_rows_are_whole_images_in_float32(world: World, monkeypatch) -> None:
    monkeypatch.setattr(views, "BANK_CHUNK", 7)
    c, model = tiny.compose("KD"), net().train()
    normalise = Normaliser(c.data, c.numerics, CPU)
    found = image_rows(model, world.data.val, normalise, c.numerics)
    assert model.training
    model.eval()
    want = models.outputs(model, normalise(world.data.val.pixels))
    torch.testing.assert_close(found.logits, want.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled, want.pooled, rtol=1e-4, atol=1e-5)
    assert not found.logits.requires_grad


def test_no_images_give_no_rows(world: World) -> None:
    c = tiny.compose("KD")
    empty = Images(world.data.val.pixels[:0], world.data.val.labels[:0], "empty")
    found = image_rows(net(), empty, Normaliser(c.data, c.numerics, CPU), c.numerics)
    assert found.logits.shape == (0, 10)
    assert found.pooled.shape == (0, 64)


@pytest.mark.parametrize("training", [False, True])
def test_a_bank_can_be_gone_on_with(training: bool, world: World, monkeypatch) -> None:
    monkeypatch.setattr(views, "BANK_CHUNK", 64)
    c, model = tiny.compose("KD"), net().train(training)
    before = tiny.clone(model)
    v = Views(world.data.train, c.data, c.numerics)
    whole = list(train_rows(model, v, c.numerics))
    assert [len(part.logits) for part in whole] == [64] * 6 + [16]
    for start in (1, 4, 6, 7):
        rest = list(train_rows(model, v, c.numerics, start=start))
        assert tiny.differences(rest, whole[start:]) == []
    assert model.training == training
    assert tiny.differences(before, model.state_dict()) == []


def part(rows: int, value: float = 0.0) -> Rows:
    return Rows(torch.full((rows, 3), value).half(), torch.full((rows, 2), -value).half())


def test_a_table_is_its_parts_one_after_the_other() -> None:
    table = assemble(iter([part(2, 1.0), part(3, 2.0)]), 5, CPU)
    assert table.logits[:, 0].tolist() == [1, 1, 2, 2, 2]
    assert table.pooled[:, 1].tolist() == [-1, -1, -2, -2, -2]
    assert table.logits.shape == (5, 3)


@pytest.mark.parametrize("sizes", [[], [4], [2, 2], [3, 3], [5, 1], [5, 5, 5], [6]])
def test_parts_that_do_not_make_up_the_table_are_an_error(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="a view bank of"):
        assemble(iter([part(size) for size in sizes]), 5, CPU)


def test_the_data_of_trainers_has_no_test_images(world: World) -> None:
    assert TrainingData._fields == ("train", "val")
    assert isinstance(world.data, TrainingData)
