"""Clean views against a slow loop."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import DataConfig, Images, TrainingData
from trainers.data.views import Normaliser, Views
from trainers.distillation.state import StepInputs
from trainers.numerics import Numerics

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
        return  # reflected and flipped crops coincide: which one was drawn cannot be seen
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


def test_the_data_of_trainers_has_no_test_images(world: World) -> None:
    assert TrainingData._fields == ("train", "val", "unlabelled")
    assert isinstance(world.data, TrainingData)
