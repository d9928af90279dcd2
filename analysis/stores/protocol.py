"""What every kind of tracking store gives: its runs and their metrics as plain rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Experiment(NamedTuple):
    """An experiment of the store, deleted ones too."""

    experiment_id: str
    name: str
    active: bool


class RunInfo(NamedTuple):
    """A run itself; times in ms since 1970, None or 0 where there is none."""

    run_id: str
    name: str | None
    status: str
    start_ms: int | None
    end_ms: int | None


class RunRows(NamedTuple):
    """The runs of an experiment, oldest first; the others are (run id, name, value)."""

    infos: list[RunInfo]
    params: list[tuple[str, str, str]]
    tags: list[tuple[str, str, str]]
    metrics: list[tuple[str, str, float]]  # the last value of each


class Points(NamedTuple):
    """Values of metrics, one column each, in no order; times in ms since 1970."""

    run_ids: Sequence[str]
    metrics: Sequence[str]
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[int]


class StoreReader(Protocol):
    """A store that is read. Infinite values may come as the largest float, as MLflow keeps them."""

    def experiments(self) -> list[Experiment]: ...
    def runs(self, experiment_id: str) -> RunRows: ...
    def points(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[Points]: ...
