"""The ranks of one run: processes that a launcher started to train it together.

Rank 0 leads: it alone holds the lease, writes checkpoints, tracks and prints. The others train the
same steps and follow its decisions. Whatever ends one of them ends all.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from pipeline.cli.console import out
from pipeline.config import ConfigError
from pipeline.outcome import FAILURE, RankFailed, reason_of
from pipeline.storage.lease import LeaseLost
from trainers.errors import Interrupted, UserError

VERBS = ("main", "finetune", "distill")
JOIN_S = 300.0  # how long the first rank waits for the last one
DEADLINE_S = 600.0  # how long a rank waits in one exchange of numbers
POLL_S = 0.5  # at most, between two looks for a decision of rank 0
LAST_WORD_S = 2.0  # how long the reason of a rank that has ended may take to arrive
LEAVE_S = 120.0  # how long the others wait until rank 0 has ended its runs
_KINDS = {kind.__name__: kind for kind in (Interrupted, LeaseLost, UserError)}

P = ParamSpec("P")
T = TypeVar("T")


class Place(NamedTuple):
    """The place of this process among those that a launcher has started."""

    launcher: str
    rank: int
    world: int
    local: int  # its number on this machine
    host: str  # where rank 0 is
    port: int


def launched(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or a step of a Slurm job has given this process, if any."""

    def number(name: str) -> int:
        return int(environment.get(name, "0"))

    if "RANK" in environment and "WORLD_SIZE" in environment:
        host, port = environment.get("MASTER_ADDR", "127.0.0.1"), number("MASTER_PORT")
        rank, world = number("RANK"), number("WORLD_SIZE")
        return Place("torchrun", rank, world, number("LOCAL_RANK"), host, port)
    if "SLURM_STEP_NUM_TASKS" in environment:  # unset in the batch script itself
        one = environment.get("SLURM_STEP_NUM_NODES") == "1"
        host = "127.0.0.1" if one else first_node(environment.get("SLURM_STEP_NODELIST", ""))
        port = 20000 + (100 * number("SLURM_JOB_ID") + number("SLURM_STEP_ID")) % 20000
        return Place(
            "srun",
            number("SLURM_PROCID"),
            number("SLURM_STEP_NUM_TASKS"),
            number("SLURM_LOCALID"),
            environment.get("MASTER_ADDR", host),
            int(environment.get("MASTER_PORT", port)),
        )
    return None


def first_node(nodes: str) -> str:
    """The first name of a list of Slurm's: `gpu003` of `gpu[003-005,010],cpu1`."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def check_alone(wanted: int, verb: str, environment: Mapping[str, str]) -> None:
    """Check a verb that is one process; those of `VERBS` may be several. (Tasks of a Slurm job may
    be commands that share work through leases.)

    Raises:
        ConfigError: several ranks are requested, or torchrun has started several processes.
    """
    if verb in VERBS:
        return
    found = launched(environment)
    if wanted > 1:
        one = f"{verb} is one process (allowed: 1); ranks are for {', '.join(VERBS)}"
        raise ConfigError([f"runtime.ranks={wanted}: {one}"])
    if found is not None and found.world > 1 and found.launcher == "torchrun":
        raise ConfigError(
            [f"{verb} is one process, and torchrun has started {found.world}: start it without"]
        )


def leads(wanted: int, environment: Mapping[str, str]) -> bool:
    """Whether this process prints for a run of `wanted` ranks that do not meet, as for a plan."""
    found = launched(environment)
    return wanted == 1 or found is None or found.rank == 0


def place_of(wanted: int, verb: str, environment: Mapping[str, str]) -> Place | None:
    """The place of this process in a run of `wanted` ranks; None: it trains by itself. Tasks of a
    Slurm job are ranks of one run only where that is requested.

    Raises:
        ConfigError: the launcher has started another number of processes.
    """
    found, option = launched(environment), f"runtime.ranks={wanted}"
    check_alone(wanted, verb, environment)
    if verb not in VERBS:
        return None
    if wanted == 1 and (found is None or found.world == 1 or found.launcher == "srun"):
        return None
    if found is None or found.world == 1:
        start = f"torchrun --nproc-per-node {wanted} -m pipeline {verb} {option} …"
        raise ConfigError([f"{option}: one process was started; start {wanted}, as in {start}"])
    if found.world != wanted:
        has = f"{found.launcher} has started {found.world} processes"
        raise ConfigError([f"{option}: {has} (allowed: {found.world})"])
    return found


class Ranks:
    """The ranks of a run; by default this process alone."""

    def __init__(self, place: Place | None = None, store: Any = None) -> None:
        self.rank, self.world = (place.rank, place.world) if place else (0, 1)
        self._store, self._decisions = store, 0

    @classmethod
    def join(cls, place: Place | None, device: torch.device) -> Ranks:
        """Meet the other ranks.

        Raises:
            UserError: not all of them came.
        """
        if place is None:
            return cls()
        os.environ |= {"MASTER_ADDR": place.host, "MASTER_PORT": str(place.port)}
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        wait, deadline = timedelta(seconds=JOIN_S), timedelta(seconds=DEADLINE_S)
        try:
            met = dist.rendezvous("env://", place.rank, place.world, timeout=wait)
            store = dist.PrefixStore(f"asib/{attempt}", next(iter(met))[0])
            dist.init_process_group(
                backend, store=store, rank=place.rank, world_size=place.world, timeout=deadline
            )
        except RuntimeError as error:
            raise UserError(
                f"runtime.ranks={place.world}: rank {place.rank} did not meet the others at "
                f"{place.host}:{place.port} ({_first_words(error)})"
            ) from error
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if place.rank:
            out.quiet = True
            logging.getLogger("pipeline").setLevel(logging.ERROR)
        return cls(place, store)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, tracks and prints."""
        return self.rank == 0

    def decided(self, make: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """What rank 0 makes, on every rank; the others wait as long as it takes. What it raises,
        all raise."""
        if self.world == 1:
            return make(*given, **named)
        self._decisions += 1
        key, told = f"decided/{self._decisions}", list[Any]([None, None])
        if not self.leads:
            self._wait(key)
            dist.broadcast_object_list(told, device=torch.device("cpu"))
            if told[0] is not None:
                raise _error(told[0])
            return told[1]
        try:
            told[1] = make(*given, **named)
        except BaseException as error:
            told[0] = self._word(error)
            raise
        finally:
            self._store.set(key, "1")
            dist.broadcast_object_list(told, device=torch.device("cpu"))
        return told[1]

    def agreed(self, flag: bool) -> bool:
        """Whether any rank has raised its flag; all ranks get the same answer."""
        if self.world == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def check_same(self, values: Mapping[str, float]) -> None:
        """Raise RankFailed, on all ranks, where one of these numbers is not the same on all."""
        if self.world == 1 or not values:
            return
        own = torch.tensor([*values.values()], dtype=torch.float64)
        both = torch.cat([own, -own])
        dist.all_reduce(both, dist.ReduceOp.MAX)
        largest, smallest = both.chunk(2)
        if wrong := [n for n, a, b in zip(values, largest, -smallest, strict=True) if a != b]:
            raise RankFailed(
                f"the ranks differ in {', '.join(wrong)}: they need the same kind of device, and "
                "the same versions, images and options"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """An exception that ends the block on this rank ends it on all; where another rank has
        ended, its exception is raised."""
        try:
            yield
        except BaseException as error:
            if self.world == 1 or isinstance(error, RankFailed):
                raise
            if not _is_lost(error):
                self._store.compare_set("ended", "", self._word(error))
                raise
            if word := self._last_word():
                raise _error(word) from error
            raise RankFailed(
                f"another rank of {self.world} was lost, or gave no sign for {DEADLINE_S:g} s "
                f"({_first_words(error)}); run the same command to resume"
            ) from error

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """The whole work of a command; then the process group is left."""
        try:
            with self.together():
                yield
        finally:
            if self.world > 1:
                self._leave()

    def _leave(self) -> None:
        """Close the connections, at which the others notice the end; rank 0 is the last to go,
        because launchers end all processes soon after the first."""
        late = threading.Timer(LEAVE_S, os._exit, (FAILURE.exit_code,))
        late.daemon = True  # a GPU may wait for a rank that is gone
        late.start()
        with suppress(RuntimeError):
            dist.destroy_process_group()
        late.cancel()
        with suppress(RuntimeError):
            if self.leads:
                self._store.set("over", "1")
            else:
                self._store.wait(["over"], timedelta(seconds=LEAVE_S))

    def _wait(self, key: str) -> None:
        """Wait for a key of rank 0.

        Raises:
            Exception: another rank has ended.
        """
        pause_s = 0.001
        while not self._store.check([key]):
            if self._store.check(["ended"]):
                raise _error(self._store.get("ended").decode())
            time.sleep(pause_s)
            pause_s = min(POLL_S, 2 * pause_s)

    def _last_word(self) -> str:
        """What a rank that has ended left behind; empty: nothing (it was killed)."""
        end = time.monotonic() + LAST_WORD_S
        with suppress(RuntimeError):
            while time.monotonic() < end:
                if self._store.check(["ended"]):
                    return str(self._store.get("ended").decode())
                time.sleep(0.05)
        return ""

    def _word(self, error: BaseException) -> str:
        """An exception as it is passed on."""
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted()
        kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "")
        text = str(error) if kind else f"rank {self.rank}: {reason_of(error)}"
        return json.dumps([kind, text])


def _error(word: str) -> Exception:
    kind, text = json.loads(word)
    return _KINDS.get(kind, RankFailed)(text)


def _first_words(error: BaseException) -> str:
    """The first sentence of an error of torch, without the line of its source."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"^\[[^]]*:\d+\]\s*", "", line).split(". ")[0][:200]


def _is_lost(error: BaseException) -> bool:
    """Whether an exchange with another rank failed (gloo raises a plain RuntimeError)."""
    found = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in found or "nccl" in found)
    )
