"""Making the parts of a view bank: each is made by the process that claims it.

Processes of the same command (the jobs of an array, say) share the work, and one that is killed
loses the part that it was making. Parts do not depend on who makes them.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from pipeline.cli.console import say
from pipeline.session import Session
from pipeline.storage.atomic import CorruptFile, set_aside
from pipeline.storage.checked_files import verify_tensors
from pipeline.storage.lease import Lease, Watch, try_acquire
from pipeline.storage.run_store import RunFolder, if_intact
from trainers.errors import Interrupted
from trainers.view_bank import BANK_CHUNK, ViewOutputs

log = logging.getLogger("pipeline")

CHUNKS_A_PART = 128
_LEASES = "parts"  # folder of the leases, one for each part, while the bank is made

Chunks = Callable[[int, int], Iterable[ViewOutputs]]  # outputs of chunks from one to another


class Parts:
    """The parts of one bank of `rows` rows, as this process sees them. Parts that were there
    before are verified once; a damaged one is set aside and made again."""

    def __init__(self, session: Session, folder: RunFolder, rows: int) -> None:
        self._session, self._folder, self._rows = session, folder, rows
        self._size = CHUNKS_A_PART * BANK_CHUNK
        self._count = -(-rows // self._size)
        self._watches: dict[int, Watch] = {}
        self._unverified = set(self._stored())
        self._seconds, self._process = 0.0, secrets.token_hex(8)

    @property
    def missing_rows(self) -> int:
        """Rows of the parts that are not stored."""
        missing = set(range(self._count)) - self._stored().keys()
        return sum(min(self._size, self._rows - number * self._size) for number in missing)

    def make(self, name: str, chunks: Chunks) -> None:
        """Make the parts that are missing, with other processes that do the same; return when all
        are stored.

        Raises:
            Interrupted: a stop was requested.
            LeaseLost: another process took over a part that this one was making.
        """
        left, waits = set(range(self._count)), False
        while left := left - (self._stored().keys() - self._unverified):
            done = {number for number in sorted(left) if self._claim(number, chunks)}
            if done:
                continue
            held = [watch for watch in map(self._watches.get, left) if watch and not watch.is_free]
            if held and not waits:
                waits, key = True, self._folder.key
                say(f"waiting  view bank  {name}  key {key} is being made by {held[0].holder}")
            time.sleep(min(1.0, self._session.runtime.heartbeat_s))

    def finish(self) -> tuple[list[str], float]:
        """The digests of all parts in order, and the seconds that all processes spent on them."""
        stored, seconds = self._stored(), 0.0
        for path in self._folder.path.glob("seconds*.json"):  # one of each process
            spent = if_intact(partial(self._folder.read_json, path.stem))
            seconds += float(spent) if isinstance(spent, int | float) else 0.0
        return [stored[number][0].name.split(".")[1] for number in range(self._count)], seconds

    def clear(self) -> None:
        """Delete the leases of the parts, which are all made, and what killed processes left."""
        shutil.rmtree(self._folder.path / _LEASES, ignore_errors=True)
        for path in self._folder.path.glob(".part-*.tmp"):
            path.unlink(missing_ok=True)

    def _claim(self, number: int, chunks: Chunks) -> bool:
        """Whether a part is stored now: it was intact, or this process could claim and make it."""
        if self._session.stop():
            raise Interrupted
        runtime = self._session.runtime
        watch = self._watches.setdefault(
            number, Watch(heartbeat_s=runtime.heartbeat_s, expiry_s=runtime.expiry_s)
        )
        try:
            lease = try_acquire(
                self._folder.path / _LEASES / f"{number:06d}",
                heartbeat_s=runtime.heartbeat_s,
                watch=watch,
            )
        except FileNotFoundError:  # the bank was finished, and its leases are deleted
            return False
        if lease is None:
            return False
        with lease:
            if not self._intact(number):
                self._make(number, lease, chunks)
            self._unverified.discard(number)
        return True

    def _make(self, number: int, lease: Lease, chunks: Chunks) -> None:
        began = time.perf_counter()
        start = number * CHUNKS_A_PART
        part = list(chunks(start, start + CHUNKS_A_PART))
        tensors = {
            "logits": torch.cat([chunk.logits for chunk in part]).cpu(),
            "pooled": torch.cat([chunk.pooled for chunk in part]).cpu(),
        }
        lease.check()
        self._folder.save_tensors(part_name(number), tensors)
        self._seconds += time.perf_counter() - began
        self._folder.write_json(f"seconds-{self._process}", self._seconds)

    def _intact(self, number: int) -> bool:
        """Whether a part is stored; what is stored and cannot be used is set aside."""
        paths = self._stored().get(number, [])
        if number not in self._unverified:
            return bool(paths)
        try:
            verify_tensors(self._folder.tensors_path(part_name(number)))
        except FileNotFoundError:
            return False
        except (CorruptFile, ValueError) as error:
            log.warning("part of a view bank cannot be used (%s): rebuilt", error)
            for damaged in paths:
                set_aside(damaged)
            return False
        return True

    def _stored(self) -> dict[int, list[Path]]:
        """The files of each part, by number."""
        found: dict[int, list[Path]] = {}
        for path in sorted(self._folder.path.glob("part-??????.*.safetensors")):
            found.setdefault(int(path.name[5:11]), []).append(path)
        return found


def part_name(number: int) -> str:
    """The name of the file of a part."""
    return f"part-{number:06d}"
