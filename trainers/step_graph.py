"""The steps of an epoch, run one by one, or, on a GPU, each by one launch of a CUDA graph.

The time of a step of a small network on a GPU is the time that Python takes to launch its kernels.
A CUDA graph is a recording of these launches that is launched as a whole. What changes from step to
step is read on the device, by a counter that the graph itself moves on (`trainers.step_index`).
What is constant in an epoch is part of the recording: every epoch is recorded again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from trainers.step_index import Index

WARM = 3  # steps at the start of an epoch that are run one by one: libraries make their workspaces
WORTH = 4  # least number of steps for which an epoch is recorded
AHEAD = 8  # steps that the host may be ahead of the GPU: what a stop has to wait for

log = logging.getLogger(__name__)
Step = Callable[[Index], dict[str, Tensor]]


class Recording(Protocol):
    """A recorded piece of work on a device."""

    def replay(self) -> None:
        """Do the work again, on the same memory."""
        ...


class Runner:
    """Runs the steps of an epoch one by one, and adds up what they give."""

    replayed = 0  # steps that were a graph

    def __init__(self, step: Step) -> None:
        self._step = step
        self._names = list[str]()
        self._given = list[Tensor]()

    def run(self, number: int) -> None:
        """Run one step. Its random numbers are drawn from torch's global generator."""
        values = self._step(number)
        self._names = list(values)
        self._given.append(_stacked(values))

    def sums(self) -> dict[str, float]:
        """The sum of each value over the steps that were run, in their order; one wait."""
        return dict(zip(self._names, self._sums(), strict=True))

    def _sums(self) -> list[float]:
        if not self._given:
            return []
        return torch.stack(self._given).cpu().double().cumsum(0)[-1].tolist()


class GraphRunner(Runner):
    """Records a step after a few were run, and replays it for the others."""

    def __init__(self, step: Step, steps: int, graphs: Graphs, purpose: str) -> None:
        super().__init__(step)
        self._steps, self._graphs, self._purpose = steps, graphs, purpose
        self._recording: Recording | None = None
        self._sum = self._at = torch.empty(0)

    def run(self, number: int) -> None:
        if len(self._given) == WARM and self._steps - number >= WORTH and not self.replayed:
            self._recording = self._recorded(number)
        if self._recording is None:
            super().run(number)
        else:
            self._graphs.wait(self.replayed)
            self._recording.replay()
            self._graphs.mark(self.replayed)
            self.replayed += 1

    def _recorded(self, number: int) -> Recording | None:
        """The recording of a step and of its part in the sums, which is not run meanwhile."""
        given = self._given[0].double()
        for one in self._given[1:]:  # in the order of the steps: rounded as on the host
            given = given + one
        at = torch.full((1,), number, device=given.device)

        def body() -> None:
            given.add_(_stacked(self._step(at)))
            at.add_(1)

        self._sum, self._at = given, at  # kept: the recording reads their memory
        return self._graphs.record(body, self._purpose)

    def _sums(self) -> list[float]:
        return self._sum.tolist() if self.replayed else super()._sums()


class Graphs:
    """The recordings of a run on a GPU: its stream, its memory, and where there is none why."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._last: torch.cuda.CUDAGraph | None = None
        self._done = [torch.cuda.Event(blocking=True) for _ in range(AHEAD)]
        self._without = dict[str, str]()  # why steps of a purpose are run one by one

    def without(self, purpose: str, reason: str) -> None:
        """Run the steps of a purpose one by one, and say once why (empty: with a graph)."""
        if reason and purpose not in self._without:
            log.warning("runtime.graph: steps of the %s run without a graph: %s", purpose, reason)
            self._without[purpose] = reason

    def runner(self, step: Step, steps: int, purpose: str) -> Runner:
        """Runs an epoch of so many steps of the student, the fusion or a teacher (`purpose`)."""
        if purpose in self._without:
            return Runner(step)
        return GraphRunner(step, steps, self, purpose)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run a block on the stream on which is recorded, the default one being none such. All
        steps are on it: gradients are added up on the stream that first did so."""
        before = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            yield
        before.wait_stream(self._stream)

    def record(self, body: Callable[[], None], purpose: str) -> Recording | None:
        """A recording of the body, which is not run; None where that fails: the host waited in it,
        or sent something."""
        try:
            return self._capture(body)
        except RuntimeError as error:
            self.without(purpose, _first_cause(error))
            return None

    def _capture(self, body: Callable[[], None]) -> Recording:
        """A graph in the memory of the last one, which is given up only now: it keeps that memory
        for this one. Other threads may use the GPU meanwhile."""
        graph, pool = torch.cuda.CUDAGraph(), None
        if self._last is None:
            torch.cuda.empty_cache()  # so that the memory of the first steps is not taken twice
        else:
            pool = self._last.pool()
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            body()
        finally:
            graph.capture_end()
        self._last = graph
        return graph

    def wait(self, replayed: int) -> None:
        """Wait for the replay that was AHEAD ago, so that the host is never further ahead."""
        if replayed >= AHEAD:
            self._done[replayed % AHEAD].synchronize()

    def mark(self, replayed: int) -> None:
        """Note on the stream that a replay is done."""
        self._done[replayed % AHEAD].record()


def _stacked(values: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.detach().float() for value in values.values()])


def _first_cause(error: BaseException) -> str:
    """First line of the error that began it: ending a failed capture raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
