"""Mapped images give the same bits as resident ones, in batches and in a whole run."""

from pathlib import Path

import pytest
import torch

from pipeline import identity
from pipeline.config import ConfigError, compose
from pipeline.identity import run_key, splits
from pipeline.session import Session
from pipeline.stages.images import in_file, on_device
from pipeline.storage.run_store import Store
from tests.trainers import tiny
from tests.trainers.data.test_views import config, noise
from tests.trainers.tiny import World
from trainers.data import TrainingData
from trainers.data.mapped import device_bytes, read_mapped
from trainers.data.views import Views
from trainers.numerics import Numerics
from trainers.options import bytes_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_batches_are_bit_equal(pad: int, mode: str, flip: bool, tmp_path: Path) -> None:
    images, c = noise(), config(crop_pad=pad, pad_mode=mode, flip=flip)
    mapped = in_file(images, tmp_path / "pixels.u8")
    assert mapped.mapped
    assert mapped.pixels.data_ptr() != images.pixels.data_ptr()
    resident, other = Views(images, c, Numerics()), Views(mapped, c, Numerics())
    assert other._windows is None  # or all images would be padded and held after all
    for rows in (torch.arange(240), torch.tensor([17, 3, 3, 200, 0])):
        one, two = resident.batch(rows), other.batch(rows)
        assert torch.equal(one, two)
        assert one.stride() == two.stride()
        assert torch.equal(resident.labels(rows), other.labels(rows))


def test_a_run_is_bit_equal(world: World, tmp_path: Path) -> None:
    c = tiny.rung("L3", "budget.student_epochs=2", "budget.adapt_epochs=2", "method.num_stages=1")
    train = in_file(world.data.train, tmp_path / "pixels.u8")
    mapped = world._replace(data=TrainingData(train, world.data.val))
    one, two = tiny.run(c, world), tiny.run(c, mapped)
    assert tiny.differences(one.state.state_dict(), two.state.state_dict()) == []
    assert tiny.without_cost(one.epochs) == tiny.without_cost(two.epochs)


def test_a_file_that_holds_something_else_is_not_used(tmp_path: Path) -> None:
    images, path = noise(), tmp_path / "deep" / "pixels.u8"
    in_file(images, path)
    whole = path.read_bytes()
    for wrong in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="does not hold"):
            read_mapped(images, path)
        assert torch.equal(in_file(images, path).pixels, images.pixels)
        assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["pixels.u8"]


def test_writing_to_mapped_pixels_leaves_the_file(tmp_path: Path) -> None:
    images = in_file(noise(), tmp_path / "pixels.u8")
    before = (tmp_path / "pixels.u8").read_bytes()
    images.pixels.zero_()
    assert (tmp_path / "pixels.u8").read_bytes() == before


def test_what_images_need_is_their_pixels_and_the_padded_copy() -> None:
    images = noise()
    for pad in (0, 2):
        c = config(crop_pad=pad)
        views = Views(images, c, Numerics())
        assert views._windows is not None
        held = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in (images.pixels, views._windows)
        }
        assert device_bytes(images, c) == sum(held.values())


@pytest.mark.parametrize("budget", ["1", "100MB", None])
def test_the_budget_decides_and_is_no_part_of_the_key(
    budget: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_read", {})
    c = tiny.compose("CE", f"runtime.store={tmp_path}", f"runtime.device_budget={budget or 'null'}")
    key, whole = run_key("distill", c), splits(c.data)
    session = Session(c.runtime, Store(tmp_path / "runs"), None, CPU)  # type: ignore[arg-type]
    data = on_device(c, session)
    assert data.train.mapped == (budget == "1")
    assert torch.equal(data.train.pixels, whole.train.pixels)
    assert splits(c.data).train.mapped == (budget == "1")  # the read copy is let go
    assert not data.val.mapped
    files = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert files == ([f"{whole.train.digest}.u8"] if budget == "1" else [])
    assert on_device(c, session).train.pixels.data_ptr() == data.train.pixels.data_ptr()
    assert run_key("distill", c) == key
    assert key == run_key("distill", tiny.compose("CE"))


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("123", 123), ("2GB", 2e9), ("500 MB", 5e8), ("1.5kb", 1500), ("2e9", 2e9)],
)
def test_sizes_are_read(text: str, count: float) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "2GiB", "GB", "2 G", "nan", "1e999999"])
def test_an_invalid_size_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        bytes_of(text)
    with pytest.raises(ConfigError, match=r"runtime\.device_budget=.*(2GB|empty)"):
        compose([f"runtime.device_budget={text}"])
