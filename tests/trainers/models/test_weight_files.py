"""A user's own weights: the wrappings of public training scripts, whole and damaged files."""

import argparse
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.trainers import tiny
from trainers import models
from trainers.models.weight_files import BadCheckpoint, fit, read_weights


def net(width: int = 3) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def weights() -> dict[str, Tensor]:
    return dict(net().state_dict())


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "nested": lambda w: {"epoch": 3, "model": {"state_dict": w}},
    "parallel": lambda w: {"net": {f"module.{k}": v for k, v in w.items()}},
    "compiled": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
    "both": lambda w: {f"module.model.{k}": v for k, v in w.items()},
    "with numbers": lambda w: w | {"epoch": 3},
    "pytorch/examples": lambda w: {
        "epoch": 5,
        "arch": "resnet20",
        "state_dict": {f"module.{k}": v for k, v in w.items()},
        "best_acc1": torch.tensor(71.2),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"last_epoch": 5},
    },
    "RepDistiller": lambda w: {
        "opt": argparse.Namespace(lr=0.1, model_name="resnet20"),
        "model": w,
        "accuracy": torch.tensor(71.2),
        "optimizer": {},
    },
    "mdistiller": lambda w: {"epoch": 240, "model": w, "best_acc": torch.tensor(71.2)},
    "torchdistill": lambda w: {
        "model": w,
        "best_value": np.float64(71.2),
        "args": argparse.Namespace(seed=1),
    },
    "timm": lambda w: {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": w,
        "state_dict_ema": {k: torch.zeros_like(v) for k, v in w.items()},
        "args": argparse.Namespace(model="resnet18"),
        "metric": np.float32(71.2),
    },
    "Lightning": lambda w: {
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": {"lr": 0.1},
        "hparams_type": argparse.Namespace,
        "state_dict": {
            **{f"model.{k}": v for k, v in w.items()},
            "criterion.weight": torch.ones(3),
            **{f"ema_model.{k}": torch.zeros_like(v) for k, v in w.items()},
        },
    },
    "MoCo": lambda w: {
        "state_dict": {
            **{f"module.encoder_q.{k}": v for k, v in w.items()},
            **{f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in w.items()},
            "module.queue": torch.ones(4, 4),
        }
    },
    "only an average": lambda w: {"model_ema": {f"module.{k}": v for k, v in w.items()}},
    "a path object": lambda w: {"net": w, "folder": Path("runs") / "one"},
    "before torch 0.4.1": lambda w: {k: v for k, v in w.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_in_what_training_scripts_save(
    wrapping: str, zipped: bool, tmp_path: Path
) -> None:
    content = WRAPPINGS[wrapping](weights())
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    model = net()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    fit(model, read_weights(tmp_path / "w.pt"), "w.pt")
    assert tiny.differences(dict(model.state_dict()), weights()) == []


def test_of_two_networks_that_fit_none_is_taken() -> None:
    both = {f"{part}.{k}": v for part in ("first", "second") for k, v in weights().items()}
    with pytest.raises(BadCheckpoint, match=r"holds 2 networks that fit \(first\., second\.\)"):
        fit(net(), both, "w.pt")


def as_resnet(name: str) -> str:
    return name.replace("shortcut", "downsample")


def as_wide_resnet(name: str) -> str:
    return re.sub(r"^(block\d)", r"\1.layer", name).replace("shortcut", "convShortcut")


def as_vgg(name: str) -> str:
    return re.sub(r"^blocks\.", "block", name).replace("fc.", "classifier.")


@pytest.mark.parametrize(
    ("model", "public"),
    [
        ("resnet8", as_resnet),
        ("resnet8x4", as_resnet),
        ("wrn_16_2", as_wide_resnet),
        ("vgg8", as_vgg),
        ("resnet20", lambda name: name.replace("fc.", "linear.")),
    ],
)
def test_names_of_public_repositories_are_translated(
    model: str, public: Callable[[str], str], tmp_path: Path
) -> None:
    theirs, ours = (models.build(model, 10, 32, in_chans=3) for _ in range(2))
    state = {f"module.{public(name)}": value for name, value in theirs.state_dict().items()}
    torch.save({"model": state, "best_acc": torch.tensor(70.0)}, tmp_path / "w.pth")
    fit(ours, read_weights(tmp_path / "w.pth"), "w.pth")
    assert tiny.differences(dict(ours.state_dict()), dict(theirs.state_dict())) == []


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(weights(), tmp_path / "w.safetensors", {"format": "pt"})
    assert tiny.differences(read_weights(tmp_path / "w.safetensors"), weights()) == []


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a file was run",))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", pickle.dumps(Harmful(), 2)])
def test_what_is_no_weights_file_is_named_and_nothing_is_run(
    content: bytes, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCheckpoint) as error:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "safetensors" in str(error.value)


@pytest.mark.parametrize("content", [{"epoch": 3, "loss": 0.5}, {}, torch.ones(2), [1, 2]])
def test_a_file_without_a_state_dict_is_an_error(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BadCheckpoint, match=r"state dict"):
        read_weights(tmp_path / "w.pt")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.pt").write_bytes(whole[:length])
        with pytest.raises(BadCheckpoint, match="cannot be read as weights"):
            read_weights(tmp_path / "w.pt")


def test_misfits_are_all_reported_and_nothing_is_loaded() -> None:
    model = net()
    before = tiny.clone(model)
    broken = weights()
    del broken["0.bias"]
    broken["head.weight"] = torch.ones(2)
    broken["0.weight"] = torch.ones(4, 2)
    broken["1.running_var"] = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(BadCheckpoint) as error:
        fit(model, broken, "w.pt")
    for part in (
        "w.pt",
        "missing 1: 0.bias",
        "unknown 1: head.weight",
        "of another shape 1: 0.weight (4, 2), not (3, 2)",
        "not finite 1: 1.running_var",
    ):
        assert part in str(error.value)
    assert tiny.differences(before, model.state_dict()) == []


def test_long_lists_of_misfits_are_shortened() -> None:
    with pytest.raises(BadCheckpoint, match=r"missing 7: .*…"):
        fit(net(), {}, "w.pt")
