"""Image folders: decoding, classes, and what is wrong with a tree."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainers.data import files
from trainers.data import DataDamaged, DataMissing, has_validation, load
from trainers.data.folder import decode


def test_a_tree_of_images_becomes_squares_by_class(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    splits = load(files.config("folder", tmp_path))
    assert splits.class_names == ("cat", "dog")
    assert splits.train.pixels.shape[1:] == (3, 16, 16)
    assert [len(part.labels) for part in splits[:3]] == [22, 2, 24]
    assert splits.test.labels.tolist() == [0] * 12 + [1] * 12
    assert np.bincount(splits.val.labels.numpy()).tolist() == [1, 1]
    means = splits.test.pixels.float().mean((2, 3))
    assert bool((means[:12, 0] < means[:12, 1]).all())  # the channel that the class darkens
    assert load(files.config("folder", tmp_path)).digest == splits.digest


def test_images_of_subfolders_are_taken_and_other_files_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat, nested = (files.write_image_folder(tmp_path / name) for name in ("flat", "nested"))
    cats = nested / "train" / "cat"
    (cats / "more" / "deep").mkdir(parents=True)
    for path in sorted(cats.glob("1*")):
        path.rename(cats / "more" / "deep" / path.name)
    (cats / ".cache").mkdir()
    (cats / ".cache" / "thumb.png").write_bytes(b"no image")
    (cats / "labels.txt").write_text("cat")
    found, plain = (load(files.config("folder", root)) for root in (nested, flat))
    assert found.digest == plain.digest
    assert f"{cats}: 1 of 13 files are not taken for images of a class (.txt)" in caplog.text


def test_linked_folders_are_read_once_and_images_of_no_class_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat, linked = (files.write_image_folder(tmp_path / name) for name in ("flat", "linked"))
    cats, elsewhere = linked / "train" / "cat", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in sorted(cats.glob("1*")):
        path.rename(elsewhere / path.name)
    (cats / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(cats)  # a circle
    (linked / "train" / "loose.png").write_bytes(b"")
    found, plain = (load(files.config("folder", root)) for root in (linked, flat))
    assert found.digest == plain.digest
    assert "1 of 1 files are not taken for images of a class (.png)" in caplog.text


def test_what_pillow_remarks_of_a_file_is_no_message_of_ours(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    files.write_image_folder(tmp_path)
    image = Image.new("P", (16, 16))
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "train" / "cat" / "p.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        load(files.config("folder", tmp_path))
    assert not [one for one in recwarn if "PIL" in one.filename]
    assert decode(tmp_path / "train" / "cat" / "p.png", 16, 3)[:, 0, 0].tolist() == [255, 0, 0]


def test_val_stands_in_for_an_absent_test(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path, parts=("train", "val"))
    splits = load(files.config("folder", tmp_path))
    assert len(splits.test.labels) == 24


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_of_its_own(name: str, tmp_path: Path) -> None:
    files.write_image_folder(tmp_path, parts=("train", name, "test"))
    splits = load(files.config("folder", tmp_path))
    assert [len(part.labels) for part in splits[:3]] == [24, 24, 24]  # none is taken from train
    (tmp_path / name / "cow").mkdir()
    with pytest.raises(DataDamaged, match="cow: a class of which"):
        load(files.config("folder", tmp_path))
    (tmp_path / name / "cow").rmdir()
    assert has_validation(files.config("folder", tmp_path, val_fraction=0))
    assert not has_validation(files.config("folder", tmp_path / "train", val_fraction=0))
    (tmp_path / {"val": "valid"}.get(name, "val")).mkdir()
    with pytest.raises(DataDamaged, match=f"{name}.*several folders of validation images"):
        load(files.config("folder", tmp_path))


def test_images_without_a_label_are_in_a_folder_of_their_own(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path, parts=("train", "test"))
    for name, grey in (("a.png", 7), ("deep/b.png", 9), (".hidden.png", 11)):
        path = tmp_path / "unlabelled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (grey,) * 3).save(path)
    alone = load(files.config("folder", tmp_path))
    assert alone.unlabelled is None
    found = load(files.config("folder", tmp_path, unlabelled="all"))
    assert found.digest == alone.digest
    assert found.unlabelled is not None
    assert sorted(found.unlabelled.pixels[:, 0, 0, 0].tolist()) == [7, 9]
    with pytest.raises(DataDamaged, match=r"every_label=true: 2 images of the folder"):
        load(files.config("folder", tmp_path, unlabelled="all", every_label=True))
    (tmp_path / "unlabelled" / "broken.png").write_text("no image")
    with pytest.raises(DataDamaged, match=r"broken.png: cannot be decoded"):
        load(files.config("folder", tmp_path, unlabelled=1))


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    for path in sorted((tmp_path / "train" / "dog").iterdir()):
        path.unlink()
    (tmp_path / "train" / "dog").rmdir()
    with pytest.raises(DataDamaged, match="one class alone cannot be learned"):
        load(files.config("folder", tmp_path))


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(20, 60, 3), dtype=np.uint8)
    wide, high = Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2))
    wide.save(tmp_path / "wide.png")
    high.save(tmp_path / "high.png")
    want = {
        "wide.png": wide.resize((30, 10), Image.Resampling.BILINEAR).crop((10, 0, 20, 10)),
        "high.png": high.resize((10, 30), Image.Resampling.BILINEAR).crop((0, 10, 10, 20)),
    }
    for name, image in want.items():
        found = decode(tmp_path / name, 10, 3)
        assert np.array_equal(found, np.asarray(image).transpose(2, 0, 1))


def test_an_image_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 12, 3), pixels.transpose(2, 0, 1))


def test_grey_becomes_colour_and_colour_grey(tmp_path: Path) -> None:
    grey = np.arange(144, dtype=np.uint8).reshape(12, 12)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 9).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.stack([grey] * 3 + [grey], 2)).save(tmp_path / "alpha.png")
    for name in ("grey.png", "deep.png", "palette.png", "alpha.png"):
        assert np.array_equal(decode(tmp_path / name, 12, 3), np.stack([grey] * 3))
        assert np.array_equal(decode(tmp_path / name, 12, 1), grey[None])


def test_a_grey_image_among_colour_ones(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    Image.new("L", (30, 30), 77).save(tmp_path / "test" / "cat" / "00.png")
    splits = load(files.config("folder", tmp_path))
    assert (splits.test.pixels[0] == 77).all()
    assert load(files.config("folder", tmp_path, channels=1)).test.pixels.shape == (24, 1, 16, 16)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    path = tmp_path / "train" / "dog" / "03.webp"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(
        DataDamaged, match=r"cannot be decoded as an image .*mend or remove"
    ) as error:
        load(files.config("folder", tmp_path))
    assert str(path) in str(error.value)


def test_another_number_of_classes_names_the_value_to_type(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path, classes=("a", "b", "c"))
    with pytest.raises(DataDamaged, match=r"3 class folders.*type data\.classes=3"):
        load(files.config("folder", tmp_path))


def test_a_test_class_without_training_images_is_an_error(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    (tmp_path / "test" / "emu").mkdir()
    with pytest.raises(DataDamaged, match="emu: a class of which"):
        load(files.config("folder", tmp_path))


def test_a_class_without_images_is_an_error(tmp_path: Path) -> None:
    files.write_image_folder(tmp_path)
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "train" / "emu" / "notes.txt").write_text("none yet")
    with pytest.raises(DataDamaged, match="emu: no images"):
        load(files.config("folder", tmp_path, classes=3))


@pytest.mark.parametrize("absent", ["train", "test"])
def test_absent_parts_are_named_with_the_way_on(absent: str, tmp_path: Path) -> None:
    other = {"train": "test", "test": "train"}[absent]
    files.write_image_folder(tmp_path, parts=(other,))
    with pytest.raises(DataMissing, match=f"no folder {absent}") as error:
        load(files.config("folder", tmp_path))
    assert "data.root=PATH" in str(error.value)
    with pytest.raises(DataMissing, match=r"data\.download=false"):
        load(files.config("folder", tmp_path, download=True))
