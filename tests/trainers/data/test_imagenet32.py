"""ImageNet-32 from small npz and pickle batches in the real format."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.data import files
from trainers.data import DataDamaged, DataMissing, load


@pytest.mark.parametrize("form", ["npz", *files.DUMPS])
def test_batches_in_order_with_labels_from_0(form: str, tmp_path: Path) -> None:
    files.write_imagenet(tmp_path, form)
    splits = load(files.config("imagenet32", tmp_path, val_fraction=0.0))
    contents = list(files.imagenet_contents().values())
    pixels = np.concatenate([content["data"] for content in contents[:10]])
    labels = np.concatenate([content["labels"] for content in contents[:10]])
    assert np.array_equal(splits.train.pixels.numpy().reshape(-1, 3072), pixels)
    assert np.array_equal(splits.train.labels.numpy(), labels - 1)
    assert np.array_equal(splits.test.pixels.numpy().reshape(-1, 3072), contents[10]["data"])
    assert splits.test.labels.min() == 0
    assert len(splits.class_names) == 1000


def test_both_forms_are_the_same_data(tmp_path: Path) -> None:
    files.write_imagenet(tmp_path / "a")
    files.write_imagenet(tmp_path / "b" / "imagenet32", "protocol 4")
    one, other = (load(files.config("imagenet32", tmp_path / place)) for place in "ab")
    assert one.digest == other.digest
    assert np.bincount(one.val.labels.numpy()).tolist() == [3] * 10


def test_the_files_are_known_by_their_sha256(tmp_path: Path) -> None:
    paths = files.write_imagenet(tmp_path)
    splits = load(files.config("imagenet32", tmp_path))
    assert splits.sources == tuple(
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths.values()
    )


def test_class_names_are_read_next_to_the_images(tmp_path: Path) -> None:
    files.write_imagenet(tmp_path)
    lines = [f"n{k:08d} {k} thing_{k}" for k in range(1000, 0, -1)]
    (tmp_path / "map_clsloc.txt").write_text("\n".join(lines))
    splits = load(files.config("imagenet32", tmp_path))
    assert splits.class_names[:2] == ("thing_1", "thing_2")
    (tmp_path / "map_clsloc.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(DataDamaged, match=r"map_clsloc\.txt"):
        load(files.config("imagenet32", tmp_path))


def test_absent_batches_are_named_and_why_they_cannot_be_fetched(tmp_path: Path) -> None:
    paths = files.write_imagenet(tmp_path)
    paths["train_data_batch_7"].unlink()
    with pytest.raises(DataMissing) as error:
        load(files.config("imagenet32", tmp_path))
    message = str(error.value)
    assert "no train_data_batch_7 (" in message
    for part in (str(tmp_path), "image-net.org", "data.root=PATH"):
        assert part in message
    with pytest.raises(DataMissing, match=r"cannot be fetched.*data\.download=false"):
        load(files.config("imagenet32", tmp_path, download=True))


def test_labels_from_0_are_distinguished_from_labels_from_1(tmp_path: Path) -> None:
    paths = files.write_imagenet(tmp_path)
    content = files.imagenet_contents()["train_data_batch_2"]
    content["labels"] = [label - 1 for label in content["labels"]]
    np.savez(paths["train_data_batch_2"], **content)
    with pytest.raises(DataDamaged, match=r"train_data_batch_2\.npz: label 0; .* 1 … 1000"):
        load(files.config("imagenet32", tmp_path))
