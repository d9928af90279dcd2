"""What the runner needs of a stage, and of the state of a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from pipeline.config import Config
from pipeline.storage.run_record import RunSpec
from pipeline.storage.run_store import RunFolder
from trainers.data import Splits
from trainers.loop import Epoch, Progress


class State(Protocol):
    """State of a trainer, complete enough to resume bit for bit."""

    progress: Progress
    best: dict[str, Any]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...
    def selected(self) -> dict[str, Tensor]: ...


S = TypeVar("S", bound=State)


class Stage(Protocol[S]):
    """A stage of a run, bound to its configuration and data."""

    name: str  # distill-L3-digits-s0
    weights: str  # name of the safetensors file: "student" or "teacher"
    folder: RunFolder
    config: Config
    data: Splits
    epochs: int

    @property
    def rates(self) -> dict[str, float]:
        """Its learning rates, by the options that set them."""

    @property
    def bank_seconds(self) -> float:
        """Seconds spent on making view banks for this stage."""

    def spec(self) -> RunSpec:
        """The description of a run that starts now."""

    def prepare(self) -> None:
        """Check what is given, and finish the stages that this one reads."""

    def new_state(self) -> S:
        """The state before the first epoch; it stops when the session has a stop request."""

    def train(self, state: S) -> Iterator[Epoch]:
        """The epochs that the state lacks; it is changed in place."""

    def network(self) -> nn.Module:
        """The network that the selected weights are loaded into."""
