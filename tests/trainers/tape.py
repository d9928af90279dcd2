"""A CUDA graph without a GPU: the operations of a step are recorded and done again on the CPU.

As on a GPU, the recording keeps addresses and Python's numbers: a step that reads one of these in
place of a tensor gives the same numbers in every replay, and so do tensors that are made again. As
on a GPU, recording changes nothing, and a step that waits for a number cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.step_graph import Graphs, Recording

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Tape(TorchDispatchMode):
    """The operations that were done under this mode, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._found: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        self._seen = set[int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in WAITS:
            raise RuntimeError(f"{func} waits")
        inputs = _tensors((args, kwargs))
        for storage in (one.untyped_storage() for one in inputs):
            if storage._cdata not in self._seen:
                self._found.append((storage, storage.clone()))
        out = func(*args, **(kwargs or {}))
        self._seen |= {one.untyped_storage()._cdata for one in (*inputs, *_tensors(out))}
        self._done.append((func, args, kwargs or {}, _tensors(out)))
        return out

    def undo(self) -> None:
        """Give the memory that the operations found its content from before them."""
        for storage, before in self._found:
            storage.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self._done:
            inputs = {one.untyped_storage()._cdata for one in _tensors((args, kwargs))}
            again = _tensors(func(*args, **kwargs))
            for old, new in zip(made, again, strict=True):
                if old.untyped_storage()._cdata not in inputs:
                    old.copy_(new)


class TapedGraphs(Graphs):
    """The recordings of a run on the CPU."""

    def __init__(self) -> None:
        self._without = {}
        self.recorded = list[str]()

    @contextmanager
    def stream(self) -> Iterator[None]:
        yield

    def _capture(self, body: Callable[[], None]) -> Recording:
        tape, state = Tape(), torch.get_rng_state()
        try:
            with tape:
                body()
        finally:
            tape.undo()
            torch.set_rng_state(state)
        return tape

    def record(self, body: Callable[[], None], purpose: str) -> Recording | None:
        self.recorded.append(purpose)
        return super().record(body, purpose)

    def wait(self, replayed: int) -> None:
        pass

    def mark(self, replayed: int) -> None:
        pass


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]
