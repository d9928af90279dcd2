"""The local store: the checkpoints and results of runs, which tracking follows.

A run is a folder ``<stage>/<key>`` with

    commit-<number>.<token>.<sha256>.pt    state and history, two generations; gone once finished
    <name>.<sha256>.safetensors            tensors that outlive the run
    result.json, <name>.json               a body with its sha256
    test-read-<number>                     one empty file for each reading of the test split

Every file is whole or absent (`pipeline.storage.atomic`). A file that two writers could write
differently has its writer's token or its content's digest in its name: when a process that lost
its lease wakes up inside a write, its file is stored next to the new holder's, and both are valid.
Everything is verified when it is read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.storage.atomic import (
    CorruptFile,
    HashingWriter,
    make_folder,
    set_aside,
    sha256,
    sync_folder,
    verify,
    write_atomic,
    write_then_name,
)
from pipeline.storage.checkpoint import Commit, check_loadable, load_commit, number_of
from pipeline.storage.run_record import HistoryEntry, Record, RunResult, RunSpec, UnreadableRecord
from trainers.errors import UserError

T = TypeVar("T")
R = TypeVar("R", bound=Record)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_COMMIT = re.compile(r"commit-(\d{8,})\.[0-9A-Za-z]{1,8}\.([0-9a-f]{64})\.pt")
_TEMPORARY_COMMIT = re.compile(r"\.commit-(\d{8,})\..*\.tmp")
_TENSORS = re.compile(r"(.*)\.([0-9a-f]{64})\.safetensors")
_TEST_READ = re.compile(r"test-read-(\d{6,})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GENERATIONS_KEPT = 2

_log = logging.getLogger("pipeline")


class DamagedRun(UserError, CorruptFile):
    """A damaged file of a run that cannot be made again from what is there: what to do."""


def if_intact(read: Callable[[], T | None]) -> T | None:
    """What `read` gives; None, with a warning, where its file is damaged or of a newer version:
    one such run stops no command that is about others."""
    try:
        return read()
    except (CorruptFile, UserError, OSError) as error:
        _log.warning("left out: %s", error)
        return None


class Store:
    """All runs under one root folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def run(self, stage: str, key: str) -> RunFolder:
        """The folder of a run; nothing is created before something is written to it.

        Raises ValueError if `stage` or `key` is no plain name.
        """
        return RunFolder(self.root, _plain(stage), _plain(key))

    def find(self, stage: str, key: str) -> RunFolder | None:
        """The folder of a run that another store names; None where these are no plain names."""
        plain = all(_NAME.fullmatch(name) for name in (stage, key))
        return self.run(stage, key) if plain else None

    def runs(self) -> list[RunFolder]:
        """All runs that have a folder, sorted by stage and key."""
        folders = (path for path in self.root.glob("*/*") if path.is_dir())
        names = sorted((path.parent.name, path.name) for path in folders)
        return [self.run(*pair) for pair in names if all(map(_NAME.fullmatch, pair))]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Names of files are given without their extension.

    Writers must hold the run's lease; anyone may read at any time. Every method raises OSError
    if the disk fails it, and those that take a name ValueError if it is not a plain one.
    """

    root: Path
    stage: str
    key: str

    @property
    def path(self) -> Path:
        return self.root / self.stage / self.key

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

    def commit(self, state: dict[str, Any], history: list[HistoryEntry], *, token: str) -> Path:
        """Saves a snapshot as the newest generation and deletes all but the two newest.

        Both are nested dicts, lists and tuples of tensors, numbers, strings and None. Raises
        TypeError for anything else, since it could not be loaded again, and ValueError for a
        token that is not alphanumeric. After an OSError the earlier checkpoints still exist.
        """
        payload = {"state": state, "history": history}
        check_loadable(payload, "commit")
        if not re.fullmatch("[0-9A-Za-z]+", token):
            raise ValueError(f"a checkpoint's token must be alphanumeric: {token!r}")
        number = max((number_of(path) for path in self._commits()), default=0) + 1
        label = f"commit-{number:08d}.{token[:8]}"

        def write(file: BinaryIO) -> str:
            hashing = HashingWriter(file)
            torch.save(payload, cast(BinaryIO, hashing))
            hashing.raise_failure()
            return f"{label}.{hashing.sha256.hexdigest()}.pt"

        path = write_then_name(self.path, label, write)
        self._prune(number)
        return path

    def latest(self) -> Commit | None:
        """The newest checkpoint that is intact, on the CPU; None if there is none.

        A corrupt one is moved aside as `*.corrupt`, with a warning, and the one before it
        is tried. Raises DamagedRun for one that this user may not read.
        """
        tried: set[Path] = set()
        found_corrupt = False
        # Listed again each time, as a writer may delete a checkpoint while we are reading it.
        while paths := [path for path in self._commits() if path not in tried]:
            path = paths[-1]
            tried.add(path)
            try:
                return load_commit(path)
            except FileNotFoundError:  # pruned by the writer, so there is a newer one
                continue
            except PermissionError as error:
                raise DamagedRun(
                    f"{path} cannot be read: {error.strerror}; chmod u+r {_shell(path)} lets you, "
                    "and without the file the checkpoint before it is used"
                ) from error
            except CorruptFile as error:
                found_corrupt = True
                with contextlib.suppress(FileNotFoundError):  # another reader was faster
                    aside = set_aside(path)
                    _log.warning(
                        "%s; moved to %s, the checkpoint before it is used", error, aside.name
                    )
        if found_corrupt:
            _log.warning("no checkpoint of %s is intact: it starts from the beginning", self.path)
        return None

    def save_tensors(
        self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
    ) -> str:
        """Saves a safetensors file next to others of that name; returns its sha256, to be kept."""
        # Copies, as the format takes neither tensors that share memory nor strided ones.
        dense = {key: _dense_copy(tensor) for key, tensor in tensors.items()}
        data = safetensors.torch.save(dense, metadata)
        digest = sha256(data)
        write_atomic(self.path / f"{_plain(name)}.{digest}.safetensors", data)
        return digest

    def tensors_path(self, name: str, sha256: str | None = None) -> Path:
        """The file of that name and sha256, or the only one of that name.

        Raises FileNotFoundError if there is none, ValueError if several differ and no sha256
        is given, or for one that is none.
        """
        if sha256 is not None and not _DIGEST.fullmatch(sha256):
            raise ValueError(f"no sha256: {sha256!r}")
        pattern = f"{_plain(name)}.{sha256 or '*'}.safetensors"
        paths = [path for path in self.path.glob(pattern) if _TENSORS.fullmatch(path.name)]
        if not paths:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path / pattern)
        if len(paths) > 1:
            raise ValueError(f"{self.path} has several files {pattern}: give the sha256 of one")
        return paths[0]

    def load_tensors(self, name: str, sha256: str | None = None) -> dict[str, Tensor]:
        """The tensors saved under that name, on the CPU; see `tensors_path`.

        Raises CorruptFile if they are not those that were saved.
        """
        path = self.tensors_path(name, sha256)
        _verify(path)
        try:
            return safetensors.torch.load_file(path, backend="pread")
        except SafetensorError as error:
            raise CorruptFile(f"{path} cannot be loaded: {error}") from error

    def weights_faults(self, result: RunResult) -> dict[str, str]:
        """Why weights of a finished run cannot be used, by name: absent, or another sha256. Raises
        DamagedRun for those that this user may not read."""
        found = {}
        for name, digest in result.weights.items():
            try:
                _verify(self.tensors_path(name, digest))
            except FileNotFoundError:
                found[name] = f"{self.path / f'{name}.{digest}.safetensors'} is missing"
            except CorruptFile as error:
                found[name] = str(error)
            except ValueError as error:
                raise DamagedRun(f"{self._json_path('result')}: {error}") from error
            except PermissionError as error:
                raise DamagedRun(f"{error.filename} cannot be read: {error.strerror}") from error
        return found

    def whole_result(self) -> RunResult | None:
        """The result of a finished run with all its weights; None for another. Raises as
        `result`."""
        result = self.result()
        return None if result is None or self.weights_faults(result) else result

    def write_spec(self, spec: RunSpec) -> None:
        """Replaces the run's description."""
        self.write_json("spec", spec.to_json())

    def spec(self) -> RunSpec | None:
        """The run's description; None where it has not started. Raises CorruptFile, NewerRecord."""
        return self.read_record("spec", RunSpec)

    def finish(self, result: RunResult) -> None:
        """Writes the result, which ends the run, and deletes the checkpoints: save weights
        before."""
        self.write_json("result", result.to_json())
        for path in [*self._commits(), *self.path.glob(".*.tmp")]:
            path.unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """The result; None where the run is not finished. Raises DamagedRun, NewerRecord."""
        try:
            return self.read_record("result", RunResult, key=self.key)  # the key is not in old ones
        except CorruptFile as error:
            raise DamagedRun(f"{error}; {self._again()}") from error

    def _again(self) -> str:
        """What to do where the result cannot be read, and what it costs."""
        away = f"mv {_shell(self.path)} {_shell(self.path.with_name(self.key + '.damaged'))}"
        return (
            f"move its folder away ({away}), and the next command that needs the run trains it "
            "from its first epoch and reads the test split once more; nothing else is trained again"
        )

    def reopen(self) -> None:
        """Take back the result of a finished run, which is kept as `result.json.replaced`: it is
        trained again from its first epoch."""
        set_aside(self._json_path("result"), "replaced")

    def count_test_read(self) -> int:
        """Call before reading the test split: counts it durably, and returns the new count."""
        make_folder(self.path)
        count = self.test_reads()
        while True:
            count += 1
            try:  # a file for each, as two processes can count together and neither is lost
                (self.path / f"test-read-{count:06d}").touch(exist_ok=False)
            except FileExistsError:  # the other process took this number
                continue
            sync_folder(self.path)
            return count

    def test_reads(self) -> int:
        """How many times the test split was read."""
        return max((int(match[1]) for match in self._matches(_TEST_READ)), default=0)

    def _json_path(self, name: str) -> Path:
        return self.path / f"{_plain(name)}.json"

    def _matches(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        """The names in the folder that match, in order of name."""
        names = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        return [match for name in names if (match := pattern.fullmatch(name))]

    def _commits(self) -> list[Path]:
        """The files of all checkpoints, oldest first."""
        paths = [self.path / match[0] for match in self._matches(_COMMIT)]
        return sorted(paths, key=lambda path: (number_of(path), path.name))

    def _prune(self, committed: int) -> None:
        commits = self._commits()
        kept = sorted({number_of(path) for path in commits})[-_GENERATIONS_KEPT:]
        for path in commits:
            if number_of(path) not in kept:
                path.unlink(missing_ok=True)
        # The holder of the lease writes this number or a later one. An earlier one was left by a
        # killed process, or is being written by one that lost the lease.
        for match in self._matches(_TEMPORARY_COMMIT):
            if int(match[1]) < committed:
                (self.path / match[0]).unlink(missing_ok=True)


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a plain name (letters, digits, _ and -): {name!r}")
    return name


def _shell(path: Path) -> str:
    return shlex.quote(str(path))


def _verify(path: Path) -> None:
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
