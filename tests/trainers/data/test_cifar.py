"""CIFAR-10 and CIFAR-100 from small files in the real format."""

import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torchvision

from tests.trainers.data import files
from trainers.data import DataDamaged, DataMissing, cifar, load
from trainers.data.pickles import read_pickle


@pytest.mark.parametrize("dump", files.DUMPS)
def test_our_reader_and_pythons_agree(dump: str) -> None:
    content = files.cifar_contents("cifar10")["data_batch_1"] | {"mean": np.linspace(0, 1, 7)}
    data = files.DUMPS[dump](content)
    ours, pythons = read_pickle(data, "file"), pickle.loads(data, encoding="latin1")  # noqa: S301
    assert ours.keys() == pythons.keys() == content.keys()
    for key, value in content.items():
        assert np.array_equal(ours[key], value)
        assert np.array_equal(pythons[key], value)
    assert ours["data"].dtype == np.uint8


def test_numbers_and_layouts_of_numpy_are_read() -> None:
    content = {
        "scalar": np.int64(7),
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        b"bytes": 1,
    }
    for protocol in range(6):
        found = read_pickle(pickle.dumps(content, protocol), "file")
        assert found["scalar"] == 7
        assert found["bytes"] == 1
        for key in ("big", "columns"):
            assert np.array_equal(found[key], content[key])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("dump", files.DUMPS)
def test_the_splits_hold_the_files_images(name: str, dump: str, tmp_path: Path) -> None:
    files.write_cifar(tmp_path, name, files.DUMPS[dump])
    splits, contents = load(files.config(name, tmp_path)), files.cifar_contents(name)
    labels_key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    test = contents[{"cifar10": "test_batch", "cifar100": "test"}[name]]
    assert np.array_equal(splits.test.pixels.numpy().reshape(-1, 3072), test["data"])
    assert splits.test.labels.tolist() == test[labels_key]
    assert [len(part.labels) for part in splits[:2]] == [180, 20]
    assert splits.train.pixels.shape[1:] == (3, 32, 32)
    want = {
        (row.tobytes(), label)
        for file, content in contents.items()
        if file.startswith(("train", "data"))
        for row, label in zip(content["data"], content[labels_key], strict=True)
    }
    found = {
        (image.numpy().tobytes(), int(label))
        for part in splits[:2]
        for image, label in zip(part.pixels, part.labels, strict=True)
    }
    assert found == want
    assert splits.class_names[1] == {"cifar10": "class 1", "cifar100": "fine 1"}[name]
    assert len(splits.class_names) == {"cifar10": 10, "cifar100": 100}[name]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_archive_gives_the_same_as_its_unpacked_files(name: str, tmp_path: Path) -> None:
    folder = files.write_cifar(tmp_path / "a", name)
    archive = files.write_cifar_archive(tmp_path / "b", name)
    digests = {load(files.config(name, p)).digest for p in (tmp_path / "a", folder, tmp_path / "b")}
    assert len(digests) == 1
    assert [p.name for p in (tmp_path / "b").iterdir()] == [archive.name]  # nothing is unpacked


def test_files_that_are_not_the_original_ones_are_named_and_known_by_their_digest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = files.write_cifar(tmp_path / "a", "cifar10")
    archive = files.write_cifar_archive(tmp_path / "b", "cifar10")
    found = load(files.config("cifar10", tmp_path / "a")).sources
    assert found == tuple((p, sha256((folder / p).read_bytes()).hexdigest()) for p, _ in found)
    assert {name for name, _ in found} == {path.name for path in folder.iterdir()}
    assert "200 training and 20 test images, the original cifar10 has 50000" in caplog.text
    caplog.clear()
    monkeypatch.setattr(cifar, "IMAGES", (200, 20))
    (packed,) = load(files.config("cifar10", tmp_path / "b")).sources
    assert packed == (archive.name, sha256(archive.read_bytes()).hexdigest())
    assert not caplog.text


def test_digests_are_those_of_these_pixels_for_ever(tmp_path: Path) -> None:
    files.write_cifar(tmp_path, "cifar10")
    digest = load(files.config("cifar10", tmp_path)).digest
    assert digest.startswith("05383d73cafd501d")


def test_validation_is_fixed_and_stratified(tmp_path: Path) -> None:
    files.write_cifar(tmp_path, "cifar10")
    one, again = (load(files.config("cifar10", tmp_path)) for _ in range(2))
    assert one.val.digest == again.val.digest
    assert np.bincount(one.val.labels.numpy()).tolist() == [2] * 10
    assert load(files.config("cifar10", tmp_path, val_fraction=0.5)).val.digest != one.val.digest


def test_absent_files_are_named_with_the_ways_on(tmp_path: Path) -> None:
    folder = files.write_cifar(tmp_path, "cifar10")
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataMissing) as error:
        load(files.config("cifar10", tmp_path))
    message = str(error.value)
    assert "no data_batch_3 (python version)" in message
    for part in (str(folder), "cifar-10-python.tar.gz", "data.root=PATH", "data.download=true"):
        assert part in message


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_files_are_fetched_only_when_requested(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: str, download: bool) -> None:
        assert download
        files.write_cifar(Path(root), name)

    monkeypatch.setattr(torchvision.datasets, name.upper(), fetch)
    with pytest.raises(DataMissing):
        load(files.config(name, tmp_path))
    load(files.config(name, tmp_path, download=True))


def test_what_cannot_be_fetched_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: str, download: bool) -> None:
        raise RuntimeError("no route to host\nand more")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    with pytest.raises(DataMissing, match=r"\(no route to host\); try again, .*data\.root=PATH"):
        load(files.config("cifar10", tmp_path, download=True))


def test_the_other_cifar_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = files.write_cifar(tmp_path, "cifar100")
    with pytest.raises(DataMissing):
        load(files.config("cifar10", tmp_path))
    content = files.cifar_contents("cifar100")["train"]
    del content["fine_labels"]
    (folder / "train").write_bytes(files.python2_pickle(content))
    with pytest.raises(DataDamaged, match="'fine_labels' is no list of whole numbers"):
        load(files.config("cifar100", tmp_path))
