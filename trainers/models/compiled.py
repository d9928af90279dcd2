"""Networks by torch.compile, in the steps of the optimiser.

What is compiled is the function `outputs`, not the network, so that weights keep their names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from trainers import parallel
from trainers.errors import UserError
from trainers.models.forward import Outputs, outputs

VARIANTS = 256  # compiled forms in a process: of networks, modes, freezing levels, batch sizes


class CannotCompile(UserError, RuntimeError):
    """A network, or this machine, cannot do what `numerics.compile` requests."""


def step_outputs(
    model: nn.Module, images_BCHW: Tensor, *, maps: bool = False, compiled: bool
) -> Outputs:
    """`outputs` in a step of the optimiser, compiled where requested: equal to rounding. Several
    ranks share the batch.

    Raises:
        CannotCompile: the network cannot be compiled as a whole, or not on this machine.
    """
    if not parallel.alone():
        run = partial(outputs, model, maps=maps)  # options refuse to compile it
        return Outputs(*parallel.in_shares(model, images_BCHW, run))
    if not compiled:
        return outputs(model, images_BCHW, maps=maps)
    function, failures = _compiled()
    try:
        return function(model, images_BCHW, maps=maps)
    except failures as error:
        reason = next(line for line in str(error).splitlines() if line.strip())[:200]
        raise CannotCompile(
            f"numerics.compile=true: {type(model).__name__} cannot be compiled here ({reason}); "
            "numerics.compile=false does without"
        ) from error


@cache
def _compiled() -> tuple[Callable[..., Outputs], type[Exception]]:
    """`outputs` by torch.compile, and what it raises where that fails. Draws of a network (dropout)
    are the ordinary ones. Its imports take seconds: only where it is used."""
    dynamo: Any = torch._dynamo
    dynamo.config.recompile_limit = VARIANTS
    dynamo.config.accumulated_recompile_limit = 4 * VARIANTS
    function = torch.compile(outputs, fullgraph=True, options={"fallback_random": True})
    return function, dynamo.exc.TorchDynamoException
