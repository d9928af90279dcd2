"""Which blocks learn, and that nothing else moves by a bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainers import tiny
from trainers import freezing, models

BLOCKS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("fc",))


def learning_blocks(level: int) -> set[str]:
    kept = BLOCKS if level == -1 else BLOCKS[len(BLOCKS) - 1 - level :]
    return {name for block in kept for name in block}


def net(name: str = "resnet8") -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, 4, 8, in_chans=1)


@pytest.mark.parametrize("level", [-1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("name", models.names())
def test_a_level_lets_the_head_and_the_last_blocks_learn(name: str, level: int) -> None:
    model = net(name)
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)  # what was set before does not matter
    names = freezing.set_level(model, level)
    learning = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names == sorted(learning)
    assert {n.split(".")[0] for n in learning} == learning_blocks(level)
    every = [n for n, _ in model.named_parameters() if n.split(".")[0] in learning_blocks(level)]
    assert learning == every


@pytest.mark.parametrize("level", [-2, 5, 17])
def test_a_level_the_network_does_not_have_is_an_error(level: int) -> None:
    with pytest.raises(ValueError, match=f"level {level} of a network of 4 blocks and a head"):
        freezing.set_level(net(), level)


def test_blocks_are_all_parameters_in_order() -> None:
    model = net()
    blocks = models.block_parameters(model)
    assert [n for block in blocks for n in block] == [n for n, _ in model.named_parameters()]
    assert [{n.split(".")[0] for n in block} for block in blocks] == [set(b) for b in BLOCKS]


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("name", models.names())
def test_what_is_frozen_is_bitwise_unchanged_after_an_epoch(name: str, level: int) -> None:
    model = freezing.freeze(net(name))
    freezing.set_level(model, level)
    before = tiny.clone(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(8, 1, 8, 8, generator=draw)
        optimiser.zero_grad()
        F.cross_entropy(models.outputs(model, x).logits, torch.arange(8) % 4).backward()
        optimiser.step()
    changed = {path.strip("/") for path in tiny.differences(before, model.state_dict())}
    assert changed == {
        n for n, _ in model.named_parameters() if n.split(".")[0] in learning_blocks(level)
    }


def test_a_frozen_network_has_no_gradients_and_keeps_its_statistics() -> None:
    model = net().train()
    assert freezing.freeze(model) is model
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())
    before = tiny.clone(model)
    model(torch.randn(4, 1, 8, 8))
    assert tiny.differences(before, model.state_dict()) == []
