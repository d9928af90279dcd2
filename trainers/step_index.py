"""Number of a step in its epoch, and what the step reads of the epoch's tables by it.

The number is a Python integer, or, in a CUDA graph, a tensor [1] on the device: one graph can be
launched for every step then.
"""

from __future__ import annotations

from torch import Tensor

Index = int | Tensor


def select(table: Tensor, at: Index, axis: int = 0) -> Tensor:
    """One step's part of a table, whose `axis` counts steps."""
    if isinstance(at, int):
        return table.select(axis, at)
    return table.index_select(axis, at).squeeze(axis)
