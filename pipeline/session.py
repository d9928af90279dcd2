"""Session: what the stages of one command share (store, tracking, device, stop request)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, TypeVar

import torch

from analysis.words import joined
from pipeline.cli.console import say
from pipeline.config import Config, ConfigError, RuntimeConfig
from pipeline.config.groups import launcher_words
from pipeline.outcome import last_line
from pipeline.ranks import Place, Ranks, check_alone, place_of
from pipeline.storage.run_record import HistoryEntry
from pipeline.storage.run_store import Store
from pipeline.tracking.launch_run import check, launch_run
from pipeline.tracking.target import TrackingTarget
from trainers.numerics import Numerics, use_repeatable_kernels, use_tf32
from trainers.step_graph import Graphs

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@dataclass
class Session:
    """Store, tracking target, device and stop request of one command."""

    runtime: RuntimeConfig
    store: Store
    target: TrackingTarget
    device: torch.device
    overrides: list[str] = field(default_factory=list)
    ranks: Ranks = field(default_factory=Ranks)
    # Called after every epoch with the history so far. An exception of it ends the stage.
    on_epoch: Callable[[list[HistoryEntry]], None] = lambda history: None
    _stop: Event = field(default_factory=Event)  # one for this and every copy of it

    @classmethod
    def open(
        cls, config: Config, verb: str, overrides: list[str], faults: Sequence[str] = ()
    ) -> Session:
        """Read the environment, choose the device, ask the tracking store, take over the signals,
        meet the other ranks.

        Raises:
            ConfigError: `faults` that are known already, no such device, a store that cannot be
                written to, a tracking store that refuses, or another number of ranks: all of them.
        """
        runtime, errors = config.runtime, list(faults)

        def tried(find: Callable[[], T]) -> T | None:
            try:
                return find()
            except ConfigError as error:
                errors.extend(error.errors)
            return None

        if runtime.threads is not None:
            torch.set_num_threads(runtime.threads)
        root = Path(runtime.store).resolve()
        target = TrackingTarget.from_environment(verb, runtime.experiment, root)
        tried(lambda: usable(root))
        place = tried(lambda: place_of(runtime.ranks, verb, os.environ))
        device = tried(lambda: choose_device(runtime, place))
        tried(lambda: can_compile(config.numerics))
        if place is None or place.rank == 0:
            tried(lambda: check(target))
        if errors or device is None:
            raise ConfigError(errors)
        target.register = runtime.register
        target.launcher = joined(launcher_words(overrides)) or target.launcher
        session = cls(runtime, store_of(runtime), target, device, overrides)
        if device.type == "cuda":
            use_repeatable_kernels()
            use_tf32(config.numerics.precision == "tf32")
        for number in STOP_SIGNALS:
            signal.signal(number, session.request_stop)
        session.ranks = Ranks.join(place, device)
        return session

    def request_stop(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the loop stops at its next step boundary. A second Ctrl-C ends now."""
        if self._stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop.set()

    def stop(self) -> bool:
        """Whether a stop was requested."""
        return self._stop.is_set()

    def graphs(self) -> Graphs | None:
        """Where a run records its steps as CUDA graphs; None: it does not, as several ranks."""
        wanted = self.runtime.graph == "auto" and self.device.type == "cuda"
        return Graphs(self.device) if wanted and self.ranks.world == 1 else None

    def stop_of_any(self) -> bool:
        """The same of any rank, and the same on all: each must ask at the same steps."""
        return self.ranks.agreed(self.stop())

    @contextmanager
    def launch(self, end: Callable[[str, dict[str, str]], None] | None = None) -> Iterator[Session]:
        """The launch run around the work of a command, and the end of the other ranks."""
        with self.ranks.until_the_end(), self._launch_run(end):
            yield self

    def _launch_run(
        self, end: Callable[[str, dict[str, str]], None] | None
    ) -> AbstractContextManager[None]:
        return launch_run(self.target, end) if self.ranks.leads else nullcontext()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Afterwards the signals have the handlers that they have now."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refusals(runtime: RuntimeConfig, verb: str) -> list[str]:
    """Why this machine or the tracking store refuses a command, before anything is made: no such
    device, a verb without ranks, a store that is a file, what the tracking store answers."""
    target = TrackingTarget.from_environment(verb, runtime.experiment, Path(runtime.store))
    found: list[str] = []
    for find in (
        lambda: store_of(runtime),
        lambda: check_alone(runtime.ranks, verb, os.environ),
        lambda: choose_device(runtime),
        lambda: check(target),
    ):
        try:
            find()
        except ConfigError as error:
            found += error.errors
    return found


def launch_of(target: TrackingTarget) -> str | None:
    """The id of the launch run that jobs are children of; None, with a message, where the
    tracking store cannot be reached: the first job that reaches it opens the launch run."""
    try:
        return target.parent_id()
    except Exception as error:  # noqa: BLE001 - reported; training does not need it
        reason = last_line(error)[:120]
        say(f"the tracking store cannot be reached ({reason}): jobs start without a launch run")
        return None


def usable(root: Path) -> Path:
    """The folder of the store, made if absent.

    Raises:
        ConfigError: it cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([f"runtime.store={root}: cannot be written to ({reason})"]) from error


def store_of(runtime: RuntimeConfig) -> Store:
    """The local store that a command uses.

    Raises:
        ConfigError: its path is a file.
    """
    root = Path(runtime.store).resolve()
    if root.exists() and not root.is_dir():
        raise ConfigError([f"runtime.store={root}: is no folder"])
    return Store(root / "runs")


def choose_device(runtime: RuntimeConfig, place: Place | None = None) -> torch.device:
    """The device of a run; `auto` is the first GPU where there is one. Of several ranks each takes
    the GPU of its number on this machine, or the only one that it sees.

    Raises:
        ConfigError: no such device on this machine.
    """
    gpus = torch.cuda.device_count()
    devices = ["cpu", *(f"cuda:{k}" for k in range(gpus))]
    if place and runtime.device.startswith("cuda:"):
        allowed = "allowed: auto, cpu, or cuda, which gives them the GPUs of a machine in turn"
        raise ConfigError([f"runtime.device={runtime.device}: not for several ranks ({allowed})"])
    if place and 1 < gpus <= place.local and runtime.device != "cpu":
        own = f"rank {place.rank} is number {place.local} of this machine, which has {gpus} GPUs"
        raise ConfigError([f"runtime.ranks={runtime.ranks}: {own} (allowed: one for each)"])
    if runtime.device == "auto" and not gpus:
        return torch.device("cpu")
    number = place.local if place and gpus > 1 else 0
    name = f"cuda:{number}" if runtime.device in ("auto", "cuda") else runtime.device
    if name not in devices:
        allowed = ", ".join(["auto", *devices])
        raise ConfigError(
            [f"runtime.device={runtime.device}: not on this machine (allowed: {allowed})"]
        )
    return torch.device(name)


def can_compile(numerics: Numerics) -> str | None:
    """The C++ compiler for `numerics.compile`; None: it is off.

    Raises:
        ConfigError: this machine has none.
    """
    if not numerics.compile:
        return None
    name = os.environ.get("CXX", "g++")
    if (found := shutil.which(name)) is None:
        raise ConfigError(
            [
                f"numerics.compile=true: this machine has no C++ compiler {name} (allowed: true "
                "where there is one, which CXX can name, or false)"
            ]
        )
    return found


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


_AMPERE = (8, 0)  # compute capability of the first GPUs with bfloat16 and TF32


def doubtful_precision(
    precision: str,
    device: torch.device,
    *,
    processor: Mapping[str, Any] | None = None,
    capability: tuple[int, int] | None = None,
) -> str | None:
    """A warning about a precision that the device does not have, or that is many times slower on it
    than float32; None: there is nothing to warn of.

    `processor` defaults to the capabilities that torch reports of the CPU, `capability` to the
    compute capability of the GPU.
    """
    if precision == "float32":
        return None
    if device.type == "cuda":
        has_all = (capability or torch.cuda.get_device_capability(device)) >= _AMPERE
        return None if has_all else _BEFORE_AMPERE.get(precision)
    found = torch.cpu.get_capabilities() if processor is None else processor
    if precision == "bfloat16" and (
        found.get("architecture") != "x86_64" or found.get("avx512_bf16") or found.get("amx_bf16")
    ):
        return None
    return _ON_CPU[precision]


_NO_TF32 = (
    "numerics=tf32 has no effect here: TF32 is of NVIDIA GPUs from Ampere on. This run computes in "
    "float32 (numerics=float32 does the same, with the key of such runs)"
)
_BEFORE_AMPERE = {
    "tf32": _NO_TF32,
    "bfloat16": "this GPU emulates bfloat16: numerics=float16 is the mixed precision of GPUs "
    "before Ampere (which has keys of its own)",
}
_SLOW = "every step takes many times as long as with numerics=float32 (which has keys of its own)"
_ON_CPU = {
    "tf32": _NO_TF32,
    "bfloat16": f"this processor has no bfloat16 instructions: {_SLOW}",
    "float16": f"float16 is for GPUs: on a CPU {_SLOW}",
}
