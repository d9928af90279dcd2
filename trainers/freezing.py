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


def train_mode(model: nn.Module, level: int, *, freeze_bn: bool) -> None:
    """Training mode; with `freeze_bn` the BatchNorm layers of frozen blocks evaluate, so that
    their statistics stand still. At level -1 nothing is frozen: a student from scratch must
    learn its statistics first."""
    model.train()
    if not freeze_bn or level < 0:
        return
    learning = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name not in learning:
            module.eval()


def requested_fraction(model: nn.Module, level: int) -> float:
    """Share of the parameters that a level asks to learn."""
    blocks = block_parameters(model)
    names = {n for b in (blocks if level == -1 else blocks[len(blocks) - 1 - level :]) for n in b}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return sum(sizes[name] for name in names) / sum(sizes.values())


def real_fraction(model: nn.Module) -> float:
    """Share of the parameters that got a gradient in the last backward pass."""
    learning = sum(p.numel() for p in model.parameters() if p.grad is not None)
    return learning / sum(p.numel() for p in model.parameters())
