"""A folder of checked files: JSON with its digest, tensors with theirs in the name."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.storage.atomic import CorruptFile, sha256, verify, write_atomic
from pipeline.storage.run_record import Record, UnreadableRecord

R = TypeVar("R", bound=Record)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TENSORS = re.compile(r"(.*)\.([0-9a-f]{64})\.safetensors")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class CheckedFiles:
    """Files in the folder `path`, named without their extension.

    Every method raises OSError if the disk fails it, and ValueError for a name that is not a plain
    one.
    """

    @property
    def path(self) -> Path:
        raise NotImplementedError

    def write_json(self, name: str, body: Any) -> None:
        """Replaces `<name>.json`. NaN and infinities survive. Raises TypeError for no JSON."""
        content = {"sha256": _json_digest(json.loads(json.dumps(body))), "body": body}
        write_atomic(self._json_path(name), json.dumps(content).encode())

    def read_json(self, name: str) -> Any | None:
        """The body of `<name>.json`, None if there is none. Raises CorruptFile."""
        path = self._json_path(name)
        try:
            content = json.loads(path.read_bytes())
            body, digest = content["body"], content["sha256"]
        except FileNotFoundError:
            return None
        except (IsADirectoryError, PermissionError) as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptFile(f"{path} cannot be parsed: {error!r}") from error
        if _json_digest(body) != digest:
            raise CorruptFile(f"{path} does not hold what was written: its sha256 differs")
        return body

    def read_record(self, name: str, kind: type[R], **defaults: Any) -> R | None:
        """The record in `<name>.json`, None if there is none. Raises CorruptFile, NewerRecord."""
        body = self.read_json(name)
        try:
            known = defaults | body if isinstance(body, dict) else body
            return None if body is None else kind.from_json(known)
        except UnreadableRecord as error:
            raise CorruptFile(f"{self._json_path(name)} {error}") from error

    def save_tensors(
        self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
    ) -> str:
        """Saves a safetensors file next to others of that name; returns its sha256, to be kept."""
        # Copies, as the format takes neither tensors that share memory nor strided ones.
        dense = {key: _dense_copy(tensor) for key, tensor in tensors.items()}
        data = safetensors.torch.save(dense, metadata)
        digest = sha256(data)
        write_atomic(self.path / f"{plain_name(name)}.{digest}.safetensors", data)
        return digest

    def tensors_path(self, name: str, sha256: str | None = None) -> Path:
        """The file of that name and sha256, or the only one of that name.

        Raises FileNotFoundError if there is none, ValueError if several differ and no sha256
        is given, or for one that is none.
        """
        if sha256 is not None and not _DIGEST.fullmatch(sha256):
            raise ValueError(f"no sha256: {sha256!r}")
        pattern = f"{plain_name(name)}.{sha256 or '*'}.safetensors"
        paths = [path for path in self.path.glob(pattern) if _TENSORS.fullmatch(path.name)]
        if not paths:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path / pattern)
        if len(paths) > 1:
            raise ValueError(f"{self.path} has several files {pattern}: give the sha256 of one")
        return paths[0]

    def load_tensors(
        self, name: str, sha256: str | None = None, *, mapped: bool = False
    ) -> dict[str, Tensor]:
        """The tensors saved under that name, on the CPU, held or mapped; see `tensors_path`.

        Raises CorruptFile if they are not those that were saved.
        """
        path = self.tensors_path(name, sha256)
        verify_tensors(path)
        try:
            return safetensors.torch.load_file(path, backend="mmap" if mapped else "pread")
        except SafetensorError as error:
            raise CorruptFile(f"{path} cannot be loaded: {error}") from error

    def _json_path(self, name: str) -> Path:
        return self.path / f"{plain_name(name)}.json"


def plain_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"not a plain name (letters, digits, _ and -): {name!r}")
    return name


def verify_tensors(path: Path) -> None:
    """Raises CorruptFile unless a file of tensors is the one that its name says; OSError."""
    try:
        with open(path, "rb") as file:
            verify(path, file, path.name.split(".")[1])
    except IsADirectoryError as error:
        raise CorruptFile(f"{path} is a folder") from error


def _json_digest(body: Any) -> str:
    """Digests parsed JSON, whatever the order of its keys and its white space."""
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _dense_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
