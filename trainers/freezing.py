"""Which blocks of a network learn.

Level -1 trains everything, 0 the head only, n the last n blocks and the head.
"""

from __future__ import annotations

from torch import nn

from trainers.models import block_parameters


def set_level(model: nn.Module, level: int) -> list[str]:
    """Set `requires_grad` by level and return the names of the parameters that learn.

    Raises:
        ValueError: the network has fewer blocks than the level asks for.
    """
    blocks = block_parameters(model)
    if not -1 <= level <= len(blocks) - 1:
        raise ValueError(f"level {level} of a network of {len(blocks) - 1} blocks and a head")
    learning = blocks if level == -1 else blocks[len(blocks) - 1 - level :]
    names = {name for block in learning for name in block}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return sorted(names)


def freeze(model: nn.Module) -> nn.Module:
    """No gradients, evaluation mode (BatchNorm's statistics stand still)."""
    return model.requires_grad_(False).eval()
