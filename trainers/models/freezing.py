"""Which blocks of a network learn (progressive partial freezing).

Level -1 trains everything, 0 the head only, n the last n blocks and the head. Blocks are those of
`blocks.block_parameters`: stem, stages, head.
"""

from __future__ import annotations

from torch import nn

from trainers.models.blocks import block_norms, block_parameters


def set_level(model: nn.Module, level: int) -> list[str]:
    """Set `requires_grad` by level and return the names of the parameters that learn.

    Raises:
        ValueError: the network has fewer blocks than the level.
    """
    names = _learning(model, level)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return sorted(names)


def train_mode(model: nn.Module, level: int, freeze_bn: bool) -> nn.Module:
    """Training mode; with `freeze_bn` and a level of at least 0, the BatchNorm layers of frozen
    blocks stay in evaluation mode, so that they use and keep the statistics that they have.

    `model.train()` undoes it: call this in its place, before each epoch. At level -1 `freeze_bn`
    changes nothing, because a network that learns from scratch needs its statistics first.

    Raises:
        ValueError: the network has fewer blocks than the level.
    """
    model.train()
    if freeze_bn and level >= 0:
        norms = block_norms(model)
        for block in norms[: _first_learning(len(norms), level)]:
            for norm in block:
                norm.eval()
    return model


def freeze(model: nn.Module) -> nn.Module:
    """No gradients, evaluation mode (BatchNorm's statistics are fixed)."""
    return model.requires_grad_(False).eval()


def requested_fraction(model: nn.Module, level: int) -> float:
    """The share of the parameters' elements that a level lets learn, 0 … 1.

    Raises:
        ValueError: the network has fewer blocks than the level.
    """
    names = _learning(model, level)
    return _share(model, [name in names for name, _ in model.named_parameters()])


def fraction(model: nn.Module) -> float:
    """The share of the parameters' elements that really learn as the model is now, 0 … 1."""
    return _share(model, [parameter.requires_grad for parameter in model.parameters()])


def moved_fraction(model: nn.Module) -> float:
    """The share of the parameters' elements that got a gradient in the last backward pass."""
    return _share(model, [parameter.grad is not None for parameter in model.parameters()])


def _learning(model: nn.Module, level: int) -> set[str]:
    blocks = block_parameters(model)
    return {name for block in blocks[_first_learning(len(blocks), level) :] for name in block}


def _first_learning(count: int, level: int) -> int:
    """Index of the first of `count` blocks that learns; the last one is the head."""
    if not -1 <= level <= count - 1:
        raise ValueError(f"level {level} of a network of {count - 1} blocks and a head")
    return 0 if level == -1 else count - 1 - level


def _share(model: nn.Module, learns: list[bool]) -> float:
    sizes = [parameter.numel() for parameter in model.parameters()]
    return sum(size for size, yes in zip(sizes, learns, strict=True) if yes) / sum(sizes)
