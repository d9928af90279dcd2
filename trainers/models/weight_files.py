"""A user's own weights: safetensors, or a torch file that is loaded without running anything.

Training scripts save more than weights: the state dict can be wrapped (`state_dict`, `model`),
several networks can be in one file, and an `argparse.Namespace` or a numpy number can be next to
them. The tensors are taken and the rest is left out.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from trainers.errors import UserError

# Keys of a state dict in a checkpoint, the most specific first.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "state_dict_ema",
    "model_ema",
)
_DEEPEST = 4  # wrappers inside wrappers
_PREFIX_PARTS = 3  # parts of a prefix, as in module.encoder_q.
# Networks that a training script keeps next to the trained one.
_COPIES = re.compile(r"ema|momentum|encoder_k|averaged|teacher")
_COUNTER = "num_batches_tracked"  # absent in files of torch before 0.4.1
# How public repositories (RepDistiller, mdistiller and others) name the parts of the small
# networks of the distillation literature, and the names here.
_PUBLIC_NAMES = (
    (re.compile(r"\.downsample\."), ".shortcut."),
    (re.compile(r"\.convShortcut\."), ".shortcut."),
    (re.compile(r"^(block\d+)\.layer\."), r"\1."),
    (re.compile(r"^block(\d+)\.(?=\d)"), r"blocks.\1."),
    (re.compile(r"^(?:classifier|linear)\."), "fc."),
)
_SHOWN, _LONGEST = 5, 80  # names that a message lists, and characters of one


class BadCheckpoint(UserError, ValueError):
    """A file that holds no weights for the network that it was given for."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, on the CPU; a torch file can hold the state
    dict itself or wrap it as training scripts do.

    Raises:
        BadCheckpoint: neither format, damaged, or no state dict in it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _check_packing(path)
        content = _load(path)
    except Exception as error:  # whatever a damaged file leads the readers to
        raise BadCheckpoint(
            f"{path} cannot be read as weights ({_reason(error)}); expected: a .safetensors file, "
            "or torch.save(model.state_dict(), path)"
        ) from error
    found = _state_dict(content, path)
    if not found:
        raise BadCheckpoint(f"{path} holds no state dict, {_DEEPEST} wrappers deep")
    return found


def _load(path: Path) -> Any:
    """What torch.load gives without running code; objects of other classes become `_LeftOut`.

    Raises:
        UnpicklingError: damaged, or a call of a function of a module that could do harm.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        left_out: list[Any] = [
            (type("LeftOut", (_LeftOut,), {}), name) for name in _other_classes(path)
        ]
        if not left_out:
            raise
        with torch.serialization.safe_globals(left_out):
            return torch.load(path, map_location="cpu", weights_only=True)


class _LeftOut:
    """In the place of an object that is not loaded: it takes any arguments and any state."""

    def __new__(cls, *_: Any) -> _LeftOut:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _other_classes(path: Path) -> list[str]:
    """Names in a torch file that torch.load refuses, none of them of torch itself."""
    if zipfile.is_zipfile(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    else:  # the format before torch 1.6: magic number, version, system, content
        with path.open("rb") as file:
            for _ in range(4):
                names = [
                    str(argument).replace(" ", ".")
                    for opcode, argument, _ in pickletools.genops(file)
                    if opcode.name == "GLOBAL"
                ]
    return [
        name for name in dict.fromkeys(names) if not name.startswith(("torch.", "collections."))
    ]


def _state_dict(content: Any, path: Path, depth: int = 0) -> dict[str, Tensor]:
    """The innermost dictionary of tensors under the keys of wrappers.

    Raises:
        BadCheckpoint: there is none.
    """
    if not isinstance(content, Mapping):
        raise BadCheckpoint(f"{path} holds a {type(content).__name__}, not a state dict")
    inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
    if inner is not None and depth < _DEEPEST:
        return _state_dict(inner, path, depth + 1)
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found and depth < _DEEPEST:
        raise BadCheckpoint(f"{path} holds no state dict (keys: {_listed(list(content))})")
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
    """Load weights, as `fitting` finds them.

    Raises:
        BadCheckpoint: they do not fit.
    """
    model.load_state_dict(fitting(model.state_dict(), weights, source))


def fitting(
    own: dict[str, Tensor], weights: dict[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """The weights under the names of a network's own. Prefixes that wrappers add are removed,
    names of public repositories are translated, and of several networks in the file the one that
    fits is taken.

    Raises:
        BadCheckpoint: names, shapes or values do not fit, or several networks fit; the message
            says which and what to try.
    """
    weights = _of_network(weights, own, source)
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
    return weights


def _of_network(
    weights: dict[str, Tensor], own: dict[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """The weights of one network under the names of `own`; all of them, where none is complete.

    Raises:
        BadCheckpoint: several networks of the file fit.
    """
    shared = next((p for p in _prefixes(weights) if all(n.startswith(p) for n in weights)), "")
    best = _translated(weights, own, shared)
    if own.keys() <= best.keys():
        return best
    fitting = {
        prefix: found
        for prefix in _prefixes(weights)
        if own.keys() <= (found := _translated(weights, own, prefix)).keys()
    }
    trained = {prefix: found for prefix, found in fitting.items() if not _COPIES.search(prefix)}
    chosen = trained or fitting
    if len(chosen) > 1:
        raise BadCheckpoint(
            f"{source} holds {len(chosen)} networks that fit ({_listed(list(chosen))}): save the "
            "tensors of one of them alone, as in torch.save(model.state_dict(), path)"
        )
    return next(iter(chosen.values()), best)


def _prefixes(weights: dict[str, Tensor]) -> list[str]:
    """Beginnings of names that end in a dot, the longest first."""
    found: dict[str, None] = {}
    for name in weights:
        parts = name.split(".")[:-1][:_PREFIX_PARTS]
        found |= {".".join(parts[:length]) + ".": None for length in range(1, len(parts) + 1)}
    return sorted(found, key=lambda prefix: -prefix.count("."))


def _translated(
    weights: dict[str, Tensor], own: dict[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    """The weights below a prefix under the names of `own` where there is one; counters of batches
    that an old file lacks are those of a new network."""
    found = {
        _own_name(name.removeprefix(prefix), own): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    counters = {
        name: torch.zeros_like(value, device="cpu")
        for name, value in own.items()
        if name.endswith(_COUNTER)
    }
    return (counters if found and not any(n.endswith(_COUNTER) for n in found) else {}) | found


def _own_name(name: str, own: dict[str, Tensor]) -> str:
    """The name of a tensor in `own`, by the first spellings of public repositories that lead to
    one; as it is where none does."""
    return next((spelling for spelling in _spellings(name) if spelling in own), name)


def _spellings(name: str) -> Iterator[str]:
    yield name
    for pattern, replacement in _PUBLIC_NAMES:
        name = pattern.sub(replacement, name)
        yield name


def _kind(value: Tensor) -> str:
    """`float32`, or `sparse_coo float32 on meta` where it is no plain tensor of values."""
    words = [] if value.layout == torch.strided else [str(value.layout)]
    words += [str(value.dtype)] + (["on meta"] if value.is_meta else [])
    return " ".join(word.removeprefix("torch.") for word in words)


def _same_kind(value: Tensor, own: Tensor) -> bool:
    """Real numbers for real numbers, whole ones for whole ones, dense and with their values."""
    dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return dense and not value.is_complex() and value.is_floating_point() == own.is_floating_point()
