"""Pickles of dictionaries of arrays, lists, numbers and text, read without running anything.

A pickle is a program: it can call whatever it names. Here the few names that numpy's arrays are
written with are mapped to functions of this file, which check their arguments; every other name
is an error. Both Python 2's pickles (CIFAR's files) and Python 3's are read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.base import DataDamaged

_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_MOST_OPCODES = 2_000_000  # a batch of ImageNet-32 needs 0.3 million
_COPIES = 4  # how often the bytes of a file may be copied while its arrays are made


def read_pickle(data: bytes, source: str | Path) -> dict[str, Any]:
    """The dictionary that a pickle holds; arrays in it are numpy's, of whole or real numbers.

    Raises:
        DataDamaged: damaged, another type, or a name in it that is none of numpy's arrays'.
    """
    try:
        _check_memo(data)
        content = _Unpickler(data).load()
    except Exception as error:  # whatever a damaged program makes of the machine that reads it
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataDamaged(f"{source}: cannot be read as a pickle of arrays ({reason})") from error
    if not isinstance(content, dict):
        raise DataDamaged(f"{source}: holds a {type(content).__name__}, not a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key)[:80]: _plain(value)
        for key, value in content.items()
    }


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value


def _check_memo(data: bytes) -> None:
    """The memo is as long as its largest index: one opcode could ask for all memory; and so
    could very many that each ask for a little."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        if opcode.name in _MEMO and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"index {argument} into a memo of {count}")
        if count > _MOST_OPCODES:
            raise pickle.UnpicklingError(f"more than {_MOST_OPCODES:,} instructions")


class _Allowance:
    """How many bytes may still be made of a file's text."""

    def __init__(self, left: int) -> None:
        self.left = left

    def encode(self, text: str) -> bytes:
        self.left -= len(text)
        if self.left < 0:
            raise pickle.UnpicklingError("the same bytes are copied again and again")
        return text.encode("latin1")


class _Dtype:
    """A numpy type, plain numbers only."""

    def __init__(self, _: _Allowance, name: Any, align: Any = False, copy: Any = False) -> None:
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if name not in _TYPES:
            raise pickle.UnpicklingError(f"an array of type {str(name)[:20]!r}, not of numbers")
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {str(order)[:20]!r}")
        self.order = order

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class _Array:
    """An array that is being read: empty until its state comes."""

    values = np.empty(0, dtype=np.uint8)

    def __init__(self, allowance: _Allowance) -> None:
        self._allowance = allowance

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        """Numbers from bytes, of which there must be exactly as many as the shape requires."""
        raw = self._allowance.encode(data) if isinstance(data, str) else data
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray):
            raise pickle.UnpicklingError("an array that is not made of bytes")
        sizes = [int(size) for size in shape]
        if any(n < 0 for n in sizes) or math.prod(sizes) * dtype.dtype().itemsize != len(raw):
            raise pickle.UnpicklingError(f"an array of {len(raw)} bytes that claims another shape")
        flat = np.frombuffer(raw, dtype=dtype.dtype())
        self.values = flat.reshape(sizes, order="F" if order == "F" else "C")


def _reconstruct(allowance: _Allowance, *_: Any) -> _Array:
    return _Array(allowance)


def _frombuffer(allowance: _Allowance, data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array(allowance)
    array.fill(data, dtype, shape, order)
    return array


def _scalar(allowance: _Allowance, dtype: Any, data: Any) -> int | float:
    array = _Array(allowance)
    array.fill(data, dtype, (), "C")
    return array.values.item()


def _encode(allowance: _Allowance, text: Any, encoding: Any) -> bytes:
    """How Python 3's protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("an encoding that is not latin1")
    return allowance.encode(text)


class _Name:
    """A name in a pickle that may be called. Nothing can be set on it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for a name")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _reconstruct,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
for _package in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _KNOWN[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _KNOWN[f"{_package}.multiarray", "scalar"] = _scalar
    _KNOWN[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._allowance = _Allowance(_COPIES * len(data))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"it names {module[:40]}.{name[:40]}, which is not part of an array; nothing of "
                "it was run"
            )
        return _Name(partial(_KNOWN[module, name], self._allowance))
