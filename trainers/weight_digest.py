"""A number for the exact bits of a network's weights, cheap enough for every epoch.

Two runs whose numbers agree have the same weights; the first epoch at which they do not is where
the runs part, however little their losses show of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainers import metrics

BITS = 52  # whole numbers of so many bits are exact as float64, which is what a metric is
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ODD = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # splitmix64's


def weights_digest(*modules: nn.Module) -> float:
    """A whole number below 2⁵² of all tensors of the modules, by value, place and order.

    Integers are added modulo 2⁶⁴ where the weights are, so the order of the additions does not
    matter: equal bits give an equal number on every device, for one wait in all.
    """
    tensors = [t for module in modules for t in module.state_dict().values()]
    if not tensors:
        return 0.0
    sums = torch.stack([_bits_sum(tensor).to(tensors[0].device) for tensor in tensors])
    place = torch.arange(len(sums), device=sums.device)
    total = _spread(_spread(sums) ^ place).sum()
    return float(int(total) & (1 << BITS) - 1)


def state_digests(**parts: Sequence[nn.Module]) -> dict[str, float]:
    """`state/<part>` of every part that has weights, as metrics of an epoch."""
    found = {metrics.STATE + name: weights_digest(*modules) for name, modules in parts.items()}
    return {name: digest for name, digest in found.items() if digest}


def _bits_sum(tensor: Tensor) -> Tensor:
    """Scalar int64: the bits of each number times an odd number of its place, added up."""
    flat = tensor.detach().contiguous().flatten()
    if flat.dtype == torch.bool:
        flat = flat.to(torch.int8)
    bits = flat.view(_INTEGERS[flat.element_size()])
    odd = torch.arange(1, 2 * bits.numel(), 2, device=bits.device).mul_(_ODD[0])
    return odd.mul_(bits).sum()


def _spread(value: Tensor) -> Tensor:
    """Each int64 spread over all its bits (the finaliser of splitmix64)."""
    value = (value ^ (value >> 30)) * _ODD[1]
    value = (value ^ (value >> 27)) * _ODD[2]
    return value ^ (value >> 31)
