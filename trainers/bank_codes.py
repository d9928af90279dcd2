"""What view banks keep of a teacher's outputs: all of them as float16, or less.

Shapes: B rows, C classes, N logits kept, D pooled width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from trainers.options import option
from trainers.tables import CodedTable, MappedTable, Table

REST_TEMPERATURE = 4.0  # at which the classes that are not kept have their mass: of all recipes


@dataclass
class BankConfig:
    """What view banks keep. Part of a student's key where it reads one."""

    logits: int | str = option(
        "all",
        "logits of a training view that view banks keep: all, or the N largest, the others being "
        "equal with the probability that they have together at temperature 4",
        low=1,
        choices=("all",),
        added=True,
    )
    features: str = option(
        "float16",
        "numbers of the pooled features in view banks; int8: with one scale for each view",
        choices=("float16", "int8"),
        added=True,
    )


class Code(Protocol):
    """How rows are stored: the type of a stored number, and both directions."""

    dtype: torch.dtype

    def row_bytes(self, width: int) -> int:
        """Bytes of a stored row of that many numbers."""
        ...

    def pack(self, rows_BW: Tensor) -> Tensor:
        """The rows as they are stored."""
        ...

    def unpack(self, packed: Tensor) -> Tensor:
        """The rows [..., W] of stored ones."""
        ...


class Half:
    """float16, nothing left out."""

    dtype = torch.half

    def row_bytes(self, width: int) -> int:
        return width * 2

    def pack(self, rows_BW: Tensor) -> Tensor:
        return rows_BW.half()

    def unpack(self, packed: Tensor) -> Tensor:
        return packed


class Largest:
    """The largest logits and their classes; one value for all others.

    The others are the most even distribution with their mass, as in the marginal smoothing of Shen
    and Xing (2022), A Fast Knowledge Distillation Framework for Visual Recognition, arXiv
    2112.01528. That has the mass at temperature 1; here it is that of the targets' temperature,
    since equal logits with the right mass at 1 have too much at 4.
    """

    dtype = torch.short

    def __init__(self, classes: int, kept: int) -> None:
        self._classes, self._kept = classes, kept

    def row_bytes(self, width: int) -> int:
        return (2 * self._kept + 1) * 2

    def pack(self, rows_BW: Tensor) -> Tensor:
        """[B, 2N + 1]: logits, as the bits of float16, their classes, and the others' logit."""
        logits_BC, tau = rows_BW.float(), REST_TEMPERATURE
        value_BN, class_BN = logits_BC.topk(self._kept)
        others_BC = logits_BC.scatter(1, class_BN, -math.inf) / tau
        count = self._classes - self._kept
        other_B1 = tau * (others_BC.logsumexp(1, keepdim=True) - math.log(count))
        value_BN, other_B1 = (part.half().view(torch.short) for part in (value_BN, other_B1))
        return torch.cat([value_BN, class_BN.short(), other_B1], 1)

    def unpack(self, packed: Tensor) -> Tensor:
        kept = self._kept
        value, number, other = packed.split([kept, kept, 1], -1)
        logits = other.view(torch.half).float().expand(*packed.shape[:-1], self._classes)
        return logits.scatter(-1, number.long(), value.view(torch.half).float())


class Bytes:
    """Whole numbers from -127 to 127 and the row's scale, float16, in two further bytes."""

    dtype = torch.int8

    def row_bytes(self, width: int) -> int:
        return width + 2

    def pack(self, rows_BW: Tensor) -> Tensor:
        rows_BW = rows_BW.float()
        scale_B1 = (rows_BW.abs().amax(1, keepdim=True) / 127).half()
        steps_BW = (rows_BW / scale_B1.float()).nan_to_num(0.0).round().clamp(-127, 127)
        return torch.cat([steps_BW.to(torch.int8), scale_B1.view(torch.int8)], 1)

    def unpack(self, packed: Tensor) -> Tensor:
        scale = packed[..., -2:].contiguous().view(torch.half).float()
        return packed[..., :-2].float() * scale


class Codes(NamedTuple):
    """How the logits and the pooled features of a bank's training views are stored."""

    logits: Code = Half()
    pooled: Code = Half()

    @classmethod
    def of(cls, config: BankConfig, classes: int) -> Codes:
        kept = config.logits
        return cls(
            Largest(classes, kept) if isinstance(kept, int) else Half(),
            Bytes() if config.features == "int8" else Half(),
        )

    def row_bytes(self, classes: int, width: int) -> int:
        """Bytes of a training view of a network of that pooled width."""
        return self.logits.row_bytes(classes) + self.pooled.row_bytes(width)


EVERYTHING = Codes()


def coded(table: Tensor | MappedTable, code: Code) -> Table:
    """The table whose rows are stored in this one."""
    return table if isinstance(code, Half) else CodedTable(table, code.unpack)
