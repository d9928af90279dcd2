"""The ordered blocks of a network (stem, stages, head) and what belongs to each."""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.models.cifar_resnet import SmallNet


def block_parameters(model: nn.Module) -> list[list[str]]:
    """Names of the parameters of each ordered block: stem, stages, head. Each is in one block. A
    network of timm that names no blocks has one before its classifier."""
    if isinstance(model, SmallNet):
        every = [name for name, _ in model.named_parameters()]
        return [
            [name for name in every if name.startswith(tuple(f"{part}." for part in block))]
            for block in model.block_names()
        ]
    from timm.models import group_parameters

    try:
        matcher = cast(Any, model).group_matcher(coarse=True)
    except (AttributeError, AssertionError, NotImplementedError):  # as timm leaves them out
        head = {id(p) for p in cast(Any, model).get_classifier().parameters()}
        names = {name: id(p) in head for name, p in model.named_parameters()}
        return [[name for name, last in names.items() if last is part] for part in (False, True)]
    groups = group_parameters(model, matcher)
    return [list(groups[key]) for key in sorted(groups)]


def block_norms(model: nn.Module) -> list[list[nn.Module]]:
    """The BatchNorm layers of each ordered block.

    A layer belongs to the block of its own parameters, or, without any, to the block of the
    parameters before it.
    """
    blocks = block_parameters(model)
    block_of = {name: number for number, block in enumerate(blocks) for name in block}
    norms: list[list[nn.Module]] = [[] for _ in blocks]
    number = 0
    for prefix, module in model.named_modules():
        own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
        number = block_of[own[0]] if own and prefix else number
        if isinstance(module, _BatchNorm):
            norms[number].append(module)
    return norms


def head_is_classifier(model: nn.Module) -> bool:
    """Whether the last block holds the classifier's parameters and no other, so that what is
    before it gives the same pooled features while the head alone learns."""
    own = {id(p) for p in cast(Any, model).get_classifier().parameters()}
    names = block_parameters(model)[-1]
    return {id(p) for name, p in model.named_parameters() if name in names} == own
