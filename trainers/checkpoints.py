"""A user's own weights: safetensors, or a torch file that is loaded without running anything."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_SHOWN = 5  # names of a mismatch that a message lists


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
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadCheckpoint(
            f"{path} cannot be read as weights ({first}); expected: a .safetensors file, or "
            "torch.save(model.state_dict(), path)"
        ) from error
    while isinstance(content, dict) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = next((content[key] for key in _WRAPPERS if key in content), None)
        if inner is None:
            raise BadCheckpoint(
                f"{path} holds no state dict (keys: {', '.join(map(str, content))})"
            )
        content = inner
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} holds a {type(content).__name__}, not a state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


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
    bad = [
        name for name, value in weights.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]  # fmt: skip
    problems = [
        f"{label} {len(found)}: {', '.join(found[:_SHOWN])}{' …' if len(found) > _SHOWN else ''}"
        for label, found in (
            ("missing", missing), ("unknown", extra), ("of another shape", shapes),
            ("not finite", bad),
        )
        if found
    ]  # fmt: skip
    if problems:
        raise BadCheckpoint(
            f"{source} does not fit the network; {'; '.join(problems)}. Names must be those of "
            "the architecture that teacher.N.model (or student.model) names, classes those of the "
            "data set"
        )
    model.load_state_dict(weights)
