"""Several processes (ranks) that train one network together, each on its rows of every batch.

Every rank has the plan, the images and the tables of the whole run. A network that learns computes
a rank's own rows; its outputs on all rows are then known to every rank, so that losses, draws and
metrics are those of the whole batch, computed by every rank alike. Only gradients of the network's
parameters are parts, and are added up. Without a process group of torch there is one rank, and
nothing here does anything.

Shapes: B rows of a batch, W ranks, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainers.errors import UserError

ROUND = 64  # chunks of a table that a rank makes before they are exchanged

_shared: list[nn.Module] = []  # networks whose gradients are parts, since the last step


def alone() -> bool:
    """Whether this process trains by itself."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def own_rows(rank: int, world: int, count: int) -> slice:
    """The rows of a batch that a rank computes: shares differ by at most one row.

    Raises:
        UserError: a rank would have none.
    """
    if count < world:
        raise UserError(f"runtime.ranks={world}: a batch of {count} images has fewer than that")
    return slice(count * rank // world, count * (rank + 1) // world)


def in_shares(
    model: nn.Module, images_B: Tensor, run: Callable[[Tensor], tuple[Any, ...]]
) -> list[Any]:
    """What `run`, which runs `model`, gives for a batch: each rank runs its own rows. Tensors, and
    tuples of tensors, of all B rows, with a gradient."""
    rows = own_rows(dist.get_rank(), dist.get_world_size(), len(images_B))
    if torch.is_grad_enabled():
        _shared.append(model)
    with _own_draws(), _WholeBatch():
        own = run(images_B[rows])

    def whole(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(whole, value))
        return _Gather.apply(value, len(images_B), rows)

    return [whole(value) for value in own]


def in_parts(
    rows: int, size: int, make: Callable[[int, int], Iterable[tuple[Tensor, ...]]]
) -> Iterator[list[Tensor]]:
    """What `make(first, stop)` gives, without a gradient, for chunks of `size` rows by their
    numbers, in order, on every rank: each makes some, the same bits as one process would."""
    count, rank, world = -(-rows // size), dist.get_rank(), dist.get_world_size()
    if count < world:
        yield from map(list, make(0, count))
        return
    like: list[Tensor] = []
    for first in range(0, count, ROUND * world):
        round_ = min(count, first + ROUND * world) - first
        ends = [first + round_ * r // world for r in range(world + 1)]
        columns = zip(*make(ends[rank], ends[rank + 1]), strict=True)
        own = [torch.cat(column) for column in columns]
        like = own or like  # a rank without a chunk in the last round had one before
        for r in range(world):
            height = min(rows, ends[r + 1] * size) - ends[r] * size
            if height > 0:
                part = own if r == rank else [t.new_empty(height, *t.shape[1:]) for t in like]
                for tensor in part:
                    dist.broadcast(tensor, r)
                yield part


@torch.no_grad()
def sum_gradients() -> None:
    """Add up the ranks' parts of the gradient, after the backward pass and before they are read."""
    if not _shared:
        return
    learning = {p: p.grad for model in _shared for p in model.parameters() if p.grad is not None}
    _shared.clear()
    gradients = list(learning.values())
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(
        gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
    )


@contextmanager
def _own_draws() -> Iterator[None]:
    """What a network draws (dropout) on a rank's rows is that rank's own; afterwards all ranks draw
    the same again."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        if rank := dist.get_rank():
            torch.manual_seed(torch.initial_seed() + rank)
        yield


class _Gather(torch.autograd.Function):
    """The rows of all ranks; every rank computes the same loss of them, so that the gradient of its
    own rows is the part of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int, rows: slice) -> Tensor:
        ctx.rows = rows
        whole = own.new_zeros(count, *own.shape[1:])
        whole[rows] = own
        dist.all_reduce(whole)  # 0 + x is x
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.rows], None, None


class _Everyone(torch.autograd.Function):
    """A row of numbers of every rank, [W, …]. Each rank's loss depends on all of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        every = own.new_zeros(dist.get_world_size(), *own.shape)
        every[dist.get_rank()] = own
        dist.all_reduce(every)
        return every

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]


class _WholeBatch(TorchFunctionMode):
    """Within it BatchNorm that learns takes its statistics over the rows of all ranks. (torch's
    SyncBatchNorm is for GPUs only, and would be another network.)"""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        run = _batch_norm if func is functional.batch_norm else func
        return run(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over the rows of all ranks, in float32 or wider."""
    if not training:
        return functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
    wide, shape = x.to(torch.promote_types(x.dtype, torch.float32)), [1, -1, *[1] * (x.ndim - 2)]
    var_C, mean_C = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)
    number = mean_C.new_full((1,), x.numel() / x.shape[1])
    every = _Everyone.apply(torch.cat([number, mean_C, var_C]))
    number_W1, (mean_WC, var_WC) = every[:, :1].detach(), every[:, 1:].chunk(2, 1)
    total = number_W1.sum()
    mean_C = (number_W1 * mean_WC).sum(0) / total
    var_C = (number_W1 * (var_WC + (mean_WC - mean_C) ** 2)).sum(0) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean), momentum)
            running_var.lerp_((var_C * (total / (total - 1))).to(running_var), momentum)
    scale_C = torch.rsqrt(var_C + eps) if weight is None else weight * torch.rsqrt(var_C + eps)
    y = (wide - mean_C.view(shape)) * scale_C.view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)
