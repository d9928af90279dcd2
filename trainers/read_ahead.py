"""Reading mapped tables ahead: during a step a thread gathers the rows of the next ones.

An epoch's plan is known before its first step. Rows are the same bits as without; tables that are
held on a device are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.tables import MappedTable, Table, mapped_part

AHEAD = 4  # reads of each table that are ready or under way before they are requested


class Reads(NamedTuple):
    """What an epoch reads of a table: the rows `plan[i] // each`, in the order of the plan."""

    table: Table | None
    plan: Iterable[Tensor]
    each: int = 1


@contextmanager
def reading_ahead(reads: Iterable[Reads]) -> Iterator[None]:
    """Read mapped tables ahead within a block, which may start anywhere in the plan and leave it.

    An error of the thread is raised where its rows are requested. At the end of the block the
    thread has ended.
    """
    mapped = [(table, one) for one in reads if (table := mapped_part(one.table)) is not None]
    if not mapped:
        yield
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        for table, one in mapped:
            table.ahead = _Ahead(pool, table, one.plan, one.each)
        yield
    finally:
        for table, _ in mapped:
            table.ahead = None
        pool.shutdown(cancel_futures=True)


class _Ahead:
    """The planned reads of one table, at most `AHEAD` of which are made before their turn."""

    def __init__(
        self, pool: ThreadPoolExecutor, table: MappedTable, plan: Iterable[Tensor], each: int
    ) -> None:
        self._pool, self._table, self._plan = pool, table, (plan := list(plan))
        flat = torch.cat([rows.flatten() for rows in plan]).cpu() // each  # one wait an epoch
        parts = flat.split([rows.numel() for rows in plan])
        self._index = [part.view(rows.shape) for part, rows in zip(parts, plan, strict=True)]
        self._number = {_memory(rows): number for number, rows in enumerate(plan)}
        self._begun: dict[int, Future[Tensor]] = {}

    def __call__(self, planned: Tensor) -> Tensor | None:
        """What was read for a part of the plan; None: it is no part of it."""
        number = self._number.get(_memory(planned))
        if number is None:
            return None
        for passed in [one for one in self._begun if one < number]:
            self._begun.pop(passed).cancel()
        for one in range(number, min(number + 1 + AHEAD, len(self._index))):
            if one not in self._begun:
                self._begun[one] = self._pool.submit(self._table.gather, self._index[one])
        return self._begun.pop(number).result()


def _memory(rows: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """What tells a part of the plan from other indices without reading it, which would wait for a
    GPU: the plan is kept, so no other tensor has its memory."""
    return rows.data_ptr(), tuple(rows.shape), rows.stride()
