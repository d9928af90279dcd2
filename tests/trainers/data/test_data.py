"""Data sets: splits, digits, and IDX files as they come, whole or damaged."""

import gzip
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import data as data_module
from trainers.data import (
    DATASETS,
    DEBIAN_FASHION,
    DataConfig,
    DataDamaged,
    DataMissing,
    Splits,
    fashion_mnist,
    load,
    read_idx,
    stratified,
)

quick = settings(deadline=None, max_examples=80, derandomize=True)


# Splits -------------------------------------------------------------------------------------

some_labels = st.lists(st.integers(0, 9), min_size=1, max_size=200).map(np.array)


@quick
@given(some_labels, st.floats(0, 0.9))
def test_a_stratified_split_is_a_partition_in_proportion(
    labels: np.ndarray, fraction: float
) -> None:
    rest, claimed = stratified(labels, fraction, "test")
    assert sorted([*rest, *claimed]) == list(range(len(labels)))
    assert list(rest) == sorted(rest)
    assert list(claimed) == sorted(claimed)
    assert len(claimed) == round(len(labels) * fraction)
    for label in set(labels.tolist()):
        exact = fraction * int((labels == label).sum())
        assert abs(int((labels[claimed] == label).sum()) - exact) < 1


@quick
@given(some_labels, st.floats(0.1, 0.9))
def test_a_split_is_a_function_of_labels_and_purpose(labels: np.ndarray, fraction: float) -> None:
    torch.manual_seed(len(labels))  # the surroundings' random state does not enter
    first, again = (stratified(labels, fraction, "test")[1] for _ in range(2))
    assert np.array_equal(first, again)
    other = stratified(labels, fraction, "another")[1]
    assert len(other) == len(first)


def test_purposes_split_differently_and_not_by_position() -> None:
    labels = np.repeat(np.arange(4), 50)
    one, other = (stratified(labels, 0.2, purpose)[1] for purpose in ("a", "b"))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[:10], np.arange(10))


def test_nothing_and_no_images_can_be_split() -> None:
    rest, claimed = stratified(np.arange(5), 0.0, "test")
    assert (len(rest), len(claimed)) == (5, 0)
    rest, claimed = stratified(np.empty(0, dtype=int), 0.5, "test")
    assert (len(rest), len(claimed)) == (0, 0)


# Digits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load(DataConfig())


def test_digits_has_its_1797_images_in_three_parts(digits: Splits) -> None:
    assert [len(part.labels) for part in digits[:3]] == [1294, 144, 359]
    assert digits.class_names == tuple("0123456789")
    for part in digits[:3]:
        assert part.pixels.shape[1:] == (1, 16, 16)
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert len(part.pixels) == len(part.labels)
        assert part.pixels.max() > 200
        counts = torch.bincount(part.labels, minlength=10)
        assert int(counts.max() - counts.min()) <= 0.15 * len(part.labels)


def test_digits_parts_share_no_image_and_lose_none() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    originals = Counter(
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    found = Counter(
        ((pixels[0].float() * 16 / 255).round().to(torch.uint8).numpy().tobytes(), int(label))
        for part in load(DataConfig(image_size=8))[:3]
        for pixels, label in zip(part.pixels, part.labels, strict=True)
    )
    assert found == originals


def test_digits_are_upscaled_between_their_pixels(digits: Splits) -> None:
    small = load(DataConfig(image_size=8))
    for y, x in ((0, 0), (3, 4), (7, 7)):
        near = digits.train.pixels[:, 0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].float()
        around = (
            small.train.pixels[:, 0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            .float()
            .flatten(1)
        )
        assert (near.flatten(1) >= around.min(1, keepdim=True).values - 1).all()
        assert (near.flatten(1) <= around.max(1, keepdim=True).values + 1).all()


def test_the_validation_part_is_fixed_and_part_of_the_digest(digits: Splits) -> None:
    torch.manual_seed(99)
    again = load(DataConfig())
    assert again.digest == digits.digest
    assert torch.equal(again.val.pixels, digits.val.pixels)
    other = load(DataConfig(val_fraction=0.2))
    assert other.test.digest == digits.test.digest
    assert other.digest != digits.digest
    assert len({part.digest for part in digits[:3]}) == 3


def test_what_is_no_part_of_the_pixels_is_no_part_of_the_digest(digits: Splits) -> None:
    assert load(DataConfig(views=7, flip=True, mean=[0.3])).digest == digits.digest
    assert load(DataConfig(image_size=8)).digest != digits.digest


def test_the_digest_reads_pixels_labels_and_shape() -> None:
    pixels, labels = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    one_off = pixels.copy()
    one_off[3, 0, 1, 1] = 1
    digest = data_module._images(pixels, labels).digest
    assert data_module._images(pixels.copy(), labels).digest == digest
    assert data_module._images(pixels, labels.astype(np.uint8)).digest == digest
    for other in (
        data_module._images(one_off, labels),
        data_module._images(pixels, labels[::-1]),
        data_module._images(pixels.reshape(4, 1, 1, 4), labels),
    ):
        assert other.digest != digest


def test_val_fraction_zero_leaves_an_empty_validation_part() -> None:
    splits = load(DataConfig(val_fraction=0.0))
    assert [len(part.labels) for part in splits[:3]] == [1438, 0, 359]
    assert splits.val.pixels.shape == (0, 1, 16, 16)


@pytest.mark.parametrize("limit", [10, 200, 1293])
def test_a_limit_trains_on_a_stratified_subset_and_leaves_the_test(
    limit: int, digits: Splits
) -> None:
    few = load(DataConfig(train_limit=limit))
    assert len(few.train.labels) == limit
    assert len(few.val.labels) == round(144 * limit / 1294)
    assert few.test.digest == digits.test.digest
    exact = torch.bincount(digits.train.labels) * limit / 1294
    assert (torch.bincount(few.train.labels, minlength=10) - exact).abs().max() < 1
    rows = {image.numpy().tobytes() for image in digits.train.pixels}
    assert all(image.numpy().tobytes() in rows for image in few.train.pixels)


def test_a_limit_above_the_data_changes_nothing(digits: Splits) -> None:
    assert load(DataConfig(train_limit=5000)).digest == digits.digest


def test_a_limit_below_the_classes_is_an_error() -> None:
    with pytest.raises(DataDamaged, match="train_limit=9: fewer images than classes"):
        load(DataConfig(train_limit=9))


def test_more_classes_in_the_data_than_configured_is_an_error() -> None:
    with pytest.raises(DataDamaged, match=r"digits has labels up to 9.*data\.classes.* 5"):
        load(DataConfig(classes=5))


# IDX files ----------------------------------------------------------------------------------

STEMS = fashion_mnist.FILES
Write = Callable[[Path, np.ndarray], Path]


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_plain(stem: Path, array: np.ndarray) -> Path:
    stem.write_bytes(idx_bytes(array))
    return stem


def write_gz(stem: Path, array: np.ndarray) -> Path:
    path = stem.with_name(stem.name + ".gz")
    path.write_bytes(gzip.compress(idx_bytes(array)))
    return path


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "train_pixels": draw.integers(256, size=(60, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(60, dtype=np.uint8) % 10,
        "test_pixels": draw.integers(256, size=(20, 28, 28), dtype=np.uint8),
        "test_labels": np.arange(20, dtype=np.uint8) % 10,
    }


def fashion(root: Path) -> DataConfig:
    return DataConfig(name="fashion_mnist", root=str(root), image_size=28)


def write_all(folder: Path, write: Write = write_plain, **changed: np.ndarray) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    parts = arrays() | changed
    return {part: write(folder / STEMS[part], parts[part]) for part in parts}


@pytest.mark.parametrize("write", [write_plain, write_gz])
@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_plain_and_gzipped_and_from_a_torchvision_root(
    inside: str, write: Write, tmp_path: Path
) -> None:
    write_all(tmp_path / inside, write)
    splits, want = load(fashion(tmp_path)), arrays()
    assert [len(part.labels) for part in splits[:3]] == [54, 6, 20]
    assert len(splits.class_names) == 10
    assert np.array_equal(splits.test.pixels.numpy()[:, 0], want["test_pixels"])
    assert np.array_equal(splits.test.labels.numpy(), want["test_labels"])
    pairs = {
        (pixels.tobytes(), int(label))
        for pixels, label in zip(want["train_pixels"], want["train_labels"], strict=True)
    }
    found = {
        (pixels.numpy().tobytes(), int(label))
        for part in (splits.train, splits.val)
        for pixels, label in zip(part.pixels, part.labels, strict=True)
    }
    assert found == pairs


def test_smaller_fashion_images_are_means_of_blocks(tmp_path: Path) -> None:
    write_all(tmp_path)
    small = load(DataConfig(name="fashion_mnist", root=str(tmp_path), image_size=14))
    whole = arrays()["test_pixels"][7, 4:6, 20:22].astype(float)
    assert small.test.pixels[7, 0, 2, 10] == int(whole.mean() + 0.5)
    assert small.test.pixels.shape == (20, 1, 14, 14)
    with pytest.raises(DataDamaged, match=r"shape \(1, 28, 28\)"):
        load(DataConfig(name="fashion_mnist", root=str(tmp_path), image_size=20))


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (0, 3, 3)])
@pytest.mark.parametrize("write", [write_plain, write_gz])
def test_idx_arrays_of_any_shape_are_read(
    write: Write, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = read_idx(write(tmp_path / "file", array))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
DAMAGED = {
    "empty": b"",
    "three bytes": GOOD[:3],
    "cut in the header": GOOD[:9],
    "cut in the data": GOOD[:-1],
    "longer than the header says": GOOD + b"\x00",
    "wrong magic": b"\x01" + GOOD[1:],
    "floats": GOOD[:2] + b"\x0d" + GOOD[3:],
    "no dimensions": b"\x00\x00\x08\x00",
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("gz", [False, True])
def test_a_damaged_idx_file_is_named(what: str, gz: bool, tmp_path: Path) -> None:
    path = tmp_path / ("labels.gz" if gz else "labels")
    path.write_bytes(gzip.compress(DAMAGED[what]) if gz else DAMAGED[what])
    with pytest.raises(DataDamaged) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3],
        lambda data: b"",
        lambda data: GOOD,
        lambda data: flipped(data, 12),  # inside the compressed stream
        lambda data: flipped(data, len(data) - 6),  # the checksum
        lambda data: data + b"rest",
    ],
    ids=["half", "no end", "empty", "not gzip", "stream", "checksum", "rest"],
)
def test_a_damaged_gzip_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(GOOD)))
    with pytest.raises(DataDamaged) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_any_flipped_byte_of_a_gzip_file_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    whole, path = gzip.compress(GOOD), tmp_path / "images.gz"
    for at in range(len(whole)):
        path.write_bytes(flipped(whole, at))
        try:
            assert np.array_equal(read_idx(path), np.arange(24).reshape(2, 3, 4))
        except DataDamaged:
            continue


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_and_labels_of_different_count_are_an_error(part: str, tmp_path: Path) -> None:
    labels = arrays()[f"{part}_labels"][:-1]
    paths = write_all(tmp_path, **{f"{part}_labels": labels})
    with pytest.raises(DataDamaged, match="do not fit together") as error:
        load(fashion(tmp_path))
    assert str(paths[f"{part}_pixels"]) in str(error.value)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_out_of_range_is_an_error(part: str, tmp_path: Path) -> None:
    labels = arrays()[f"{part}_labels"].copy()
    labels[3] = 10
    paths = write_all(tmp_path, **{f"{part}_labels": labels})
    with pytest.raises(DataDamaged, match="label 10 of 10 classes") as error:
        load(fashion(tmp_path))
    assert str(paths[f"{part}_labels"]) in str(error.value)


def test_images_of_another_size_than_configured_are_an_error(tmp_path: Path) -> None:
    write_all(tmp_path)
    config = fashion(tmp_path)
    config.image_size = 32
    with pytest.raises(DataDamaged, match=r"\(1, 28, 28\).*\(1, 32, 32\)"):
        load(config)


def test_absent_files_are_named_with_the_places_and_the_ways_on(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    paths["test_labels"].unlink()
    with pytest.raises(DataMissing) as error:
        load(fashion(tmp_path))
    message = str(error.value)
    assert STEMS["test_labels"] in message
    assert STEMS["train_pixels"] not in message
    assert str(tmp_path) in message
    assert str(tmp_path / "FashionMNIST" / "raw") in message
    for way in ("dataset-fashion-mnist", "data.root=", "data.download=true"):
        assert way in message


def test_without_a_root_the_usual_places_are_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION", tmp_path / "debian")
    config = DataConfig(name="fashion_mnist", image_size=28)
    with pytest.raises(DataMissing):
        load(config)
    write_all(tmp_path / "debian", write_gz)
    assert len(load(config).test.labels) == 20
    write_all(tmp_path / "data", test_labels=np.full(20, 3, np.uint8))
    assert set(load(config).test.labels.tolist()) == {3}


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="no Debian package with Fashion-MNIST")
def test_debians_fashion_mnist_is_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # not a ./data of the surroundings
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION", DEBIAN_FASHION)
    raw = DATASETS["fashion_mnist"](DataConfig(name="fashion_mnist", image_size=28))
    assert raw.train_pixels.shape == (60_000, 1, 28, 28)
    assert raw.test_pixels.shape == (10_000, 1, 28, 28)
    assert np.bincount(raw.train_labels).tolist() == [6000] * 10
    assert np.bincount(raw.test_labels).tolist() == [1000] * 10
    assert raw.train_pixels.mean() / 255 == pytest.approx(0.286, abs=1e-3)
    assert raw.train_pixels.std() / 255 == pytest.approx(0.353, abs=1e-3)
