"""Adding a data set takes one file, one line and one YAML; and every one of the project has all."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import identity
from pipeline.config import compose, groups
from pipeline.config import hydra_files as configuration
from pipeline.config.groups import options_of
from pipeline.identity import run_key, splits
from trainers.data import DATASETS, DataConfig, Raw


def stripes(config: DataConfig) -> Raw:
    """What the file of a new data set holds."""
    label = np.arange(60) % 3
    pixels = np.zeros((60, 1, config.image_size, config.image_size), dtype=np.uint8)
    pixels[np.arange(60), 0, label] = 255
    return Raw(pixels[:45], label[:45], pixels[45:], label[45:], ("top", "middle", "bottom"))


YAML = """\
name: stripes
image_size: 8
channels: 1
classes: 3
crop_pad: 0
mean: [0.1]
std: [0.3]
"""


def test_a_data_set_in_three_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(groups.CONF, tmp_path / "conf")
    for module in (configuration, groups):
        monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    monkeypatch.setattr(identity, "_read", {})
    monkeypatch.setitem(DATASETS, "stripes", stripes)  # the line in DATASETS
    (tmp_path / "conf" / "data" / "stripes.yaml").write_text(YAML)
    config = compose(["bench=digits_all", "data=stripes"])
    found = splits(config.data)
    assert found.class_names == ("top", "middle", "bottom")
    assert [len(part.labels) for part in found[:3]] == [41, 4, 15]
    assert found.train.pixels.dtype == torch.uint8
    assert run_key("distill", config) != run_key("distill", compose([]))


def test_every_data_set_has_its_values() -> None:
    assert options_of("data") == sorted(DATASETS)
    for name in DATASETS:
        assert compose([f"data={name}"]).data.name == name


def test_cifar100_has_the_published_recipe() -> None:
    data = compose(["data=cifar100"]).data
    assert (data.crop_pad, data.pad_mode, data.flip, data.image_size) == (4, "reflect", True, 32)
    assert data.mean == [0.5071, 0.4867, 0.4408]
    assert data.std == [0.2675, 0.2565, 0.2761]
