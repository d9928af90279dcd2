"""A user's own weights, in every wrapping, whole or damaged."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.trainers import tiny
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
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_in_what_training_scripts_save(wrapping: str, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping](weights()), tmp_path / "w.pt")
    model = net()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    fit(model, read_weights(tmp_path / "w.pt"), "w.pt")
    assert tiny.differences(dict(model.state_dict()), weights()) == []


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(weights(), tmp_path / "w.safetensors")
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
def test_a_file_without_a_state_dict_says_so(content: object, tmp_path: Path) -> None:
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


def test_misfits_are_all_told_and_nothing_is_loaded() -> None:
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


def test_long_lists_of_misfits_are_cut() -> None:
    with pytest.raises(BadCheckpoint, match=r"missing 7: .*…"):
        fit(net(), {}, "w.pt")
