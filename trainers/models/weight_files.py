"""A user's own weights: safetensors, or a torch file that is loaded without running anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_DEEPEST = 4  # wrappers inside wrappers
_SHOWN, _LONGEST = 5, 80  # names that a message lists, and characters of one


class BadCheckpoint(ValueError):
    """A file that holds no weights for the network that it was given for."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, on the CPU; a torch file may hold the state
    dict itself or wrap it as training scripts do.

    Raises:
        BadCheckpoint: neither format, damaged, or something else than tensors in it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _check_packing(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file leads the readers to
        raise BadCheckpoint(
            f"{path} cannot be read as weights ({_reason(error)}); expected: a .safetensors file, "
            "or torch.save(model.state_dict(), path)"
        ) from error
    for _ in range(_DEEPEST):
        if not isinstance(content, dict) or any(isinstance(v, Tensor) for v in content.values()):
            break
        inner = next((content[key] for key in _WRAPPERS if key in content), None)
        if inner is None:
            raise BadCheckpoint(f"{path} holds no state dict (keys: {_listed(list(content))})")
        content = inner
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} holds a {type(content).__name__}, not a state dict")
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise BadCheckpoint(f"{path} holds no state dict, {_DEEPEST} wrappers deep")
    return found


def _check_packing(path: Path) -> None:
    """torch.save never compresses: a file that does could unpack to any size.

    Raises:
        ValueError: compressed.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, as torch.save leaves no file")


def _reason(error: Exception) -> str:
    """The first line of an error; not torch's, which advises to load what a file wants to run."""
    if isinstance(error, UnpicklingError | EOFError):
        return "damaged, or more in it than tensors and plain values, which is not loaded"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _listed(names: list[Any]) -> str:
    shown = ", ".join(str(name)[:_LONGEST] for name in names[:_SHOWN])
    return shown + (" …" if len(names) > _SHOWN else "")


def fit(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Load weights, without the prefixes that wrappers add.

    Raises:
        BadCheckpoint: names, shapes or values do not fit; says which and what to try.
    """
    own = model.state_dict()
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    fitting = [n for n in sorted(own) if n in weights and own[n].shape == weights[n].shape]
    types = [
        f"{name} {_kind(weights[name])}, not {_kind(own[name])}"
        for name in fitting
        if not _same_kind(weights[name], own[name])
    ]
    bad = [  # of the shape that is wanted only: a few bytes can claim to be any number of values
        name
        for name in fitting
        if _same_kind(weights[name], own[name])
        and own[name].is_floating_point()
        and not bool(weights[name].to(own[name].dtype).isfinite().all())
    ]
    problems = [
        f"{label} {len(found)}: {_listed(found)}"
        for label, found in (
            ("missing", missing),
            ("unknown", extra),
            ("of another shape", shapes),
            ("of another type", types),
            ("not finite", bad),
        )
        if found
    ]
    if problems:
        raise BadCheckpoint(
            f"{source} does not fit the network; {'; '.join(problems)}. Names must be those of "
            "the architecture that teacher.N.model (or student.model) names, classes those of the "
            "data set"
        )
    model.load_state_dict(weights)


def _kind(value: Tensor) -> str:
    """`float32`, or `sparse_coo float32 on meta` where it is no plain tensor of values."""
    words = [] if value.layout == torch.strided else [str(value.layout)]
    words += [str(value.dtype)] + (["on meta"] if value.is_meta else [])
    return " ".join(word.removeprefix("torch.") for word in words)


def _same_kind(value: Tensor, own: Tensor) -> bool:
    """Real numbers for real numbers, whole ones for whole ones, dense and with their values."""
    dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return dense and not value.is_complex() and value.is_floating_point() == own.is_floating_point()
