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
import logging
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from pipeline.storage.atomic import (
    CorruptFile,
    HashingWriter,
    make_folder,
    set_aside,
    sync_folder,
    write_then_name,
)
from pipeline.storage.checked_files import NAME, CheckedFiles, plain_name, verify_tensors
from pipeline.storage.checkpoint import Commit, check_loadable, load_commit, number_of
from pipeline.storage.run_record import HistoryEntry, RunResult, RunSpec
from trainers.errors import UserError

T = TypeVar("T")
WRITE_BUFFER = 2**20  # bytes of a checkpoint, of thousands of small parts, that are written at once

_COMMIT = re.compile(r"commit-(\d{8,})\.[0-9A-Za-z]{1,8}\.([0-9a-f]{64})\.pt")
_TEMPORARY_COMMIT = re.compile(r"\.commit-(\d{8,})\..*\.tmp")
_TEST_READ = re.compile(r"test-read-(\d{6,})")
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
        return RunFolder(self.root, plain_name(stage), plain_name(key))

    def find(self, stage: str, key: str) -> RunFolder | None:
        """The folder of a run that another store names; None where these are no plain names."""
        plain = all(NAME.fullmatch(name) for name in (stage, key))
        return self.run(stage, key) if plain else None

    def runs(self) -> list[RunFolder]:
        """All runs that have a folder, sorted by stage and key."""
        folders = (path for path in self.root.glob("*/*") if path.is_dir())
        names = sorted((path.parent.name, path.name) for path in folders)
        return [self.run(*pair) for pair in names if all(map(NAME.fullmatch, pair))]


@dataclass(frozen=True)
class RunFolder(CheckedFiles):
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
            with BufferedWriter(hashing, WRITE_BUFFER) as buffered:
                torch.save(payload, buffered)
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

    def weights_faults(self, result: RunResult) -> dict[str, str]:
        """Why weights of a finished run cannot be used, by name: absent, or another sha256. Raises
        DamagedRun for those that this user may not read."""
        found = {}
        for name, digest in result.weights.items():
            try:
                verify_tensors(self.tensors_path(name, digest))
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


def _shell(path: Path) -> str:
    return shlex.quote(str(path))
