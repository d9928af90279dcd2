"""Which blocks learn, and that nothing else moves by a bit."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainers import tiny
from trainers import models
from trainers.models import freezing

BLOCKS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("fc",))


def learning_blocks(level: int) -> set[str]:
    kept = BLOCKS if level == -1 else BLOCKS[len(BLOCKS) - 1 - level :]
    return {name for block in kept for name in block}


def net(name: str = "resnet8") -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, 4, 8, in_chans=1)


@pytest.mark.parametrize("level", [-1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
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
@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
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


HUGE = ("convnext_l", "efficientnet_l2")  # their classes are tested on convnext_s, efficientnet_b0
SLOW = ("convnext_s", "resnet50", "resnet101", "resnet152")  # on smaller images
SMALL = ("resnet8", "vgg8", "wrn_16_2", "shufflenet_v2")  # trained at every level
LARGEST = ("resnet101", "resnet152", "convnext_s")  # thorough only; resnet50 is of their kind
LEVELS = [
    (name, level)
    for name in models.names()
    for level in range(-1, (models.known_blocks(name) or 0) + 1)
]


@lru_cache(maxsize=1)  # the largest hold 0.5 GB with their copy
def first_state(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = models.build(name, 4, image_size(name))
    return model, tiny.clone(model)


def image_size(name: str) -> int:
    return 16 if name in SLOW else 32


def train_epoch(model: nn.Module, size: int, level: int, freeze_bn: bool) -> None:
    """Two steps, as a loop does them: zero-initialised scales let the first reach nothing else."""
    freezing.set_level(model, level)
    freezing.train_mode(model, level, freeze_bn)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-3, weight_decay=0.1, fused=True)
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        x = torch.randn(2, 3, size, size, generator=draw)
        optimiser.zero_grad()
        F.cross_entropy(models.outputs(model, x).logits, torch.tensor([0, 1])).backward()
        optimiser.step()


def expected_changes(model: nn.Module, level: int) -> set[str]:
    """Learning parameters, and statistics of the BatchNorm layers whose weights learn."""
    blocks = models.block_parameters(model)
    learning = {n for b in (blocks if level == -1 else blocks[-1 - level :]) for n in b}
    statistics = {
        n for n, _ in model.named_buffers() if f"{n.rpartition('.')[0]}.weight" in learning
    }
    return learning | statistics


def trained_cases() -> Iterator[Any]:
    """Every network at every level; of the large ones one level, the others marked thorough."""
    for name, level in LEVELS:
        if name not in HUGE:
            quick = name in SMALL or (level == 2 and name not in LARGEST)
            yield pytest.param(name, level, marks=() if quick else pytest.mark.thorough)


@pytest.mark.parametrize(("name", "level"), trained_cases())
def test_weights_and_statistics_of_frozen_blocks_are_unchanged_and_others_move(
    name: str, level: int
) -> None:
    model, before = first_state(name)
    model.load_state_dict(before)
    train_epoch(model, image_size(name), level, freeze_bn=True)
    changed = {path.strip("/") for path in tiny.differences(before, model.state_dict())}
    assert changed == expected_changes(model, level)
    assert freezing.fraction(model) == freezing.requested_fraction(model, level)


@pytest.mark.parametrize(("name", "level"), [case for case in LEVELS if case[0] in HUGE])
def test_of_the_largest_the_same_blocks_are_set(name: str, level: int) -> None:
    model = huge(name)
    names = freezing.set_level(model, level)
    freezing.train_mode(model, level, freeze_bn=True)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(names)
    for prefix, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (f"{prefix}.weight" in names)
    assert freezing.fraction(model) == freezing.requested_fraction(model, level)


@lru_cache(maxsize=1)
def huge(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, 4, 32)


@pytest.mark.parametrize("level", [0, 2])
def test_statistics_of_frozen_blocks_move_unless_they_are_frozen_too(level: int) -> None:
    model, before = first_state("mobilenet_v2")
    model.load_state_dict(before)
    train_epoch(model, 32, level, freeze_bn=False)
    changed = {path.strip("/") for path in tiny.differences(before, model.state_dict())}
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert changed == learning | {n for n, _ in model.named_buffers()}


def test_train_mode_holds_only_the_batch_norms_of_frozen_blocks() -> None:
    model = models.build("mobilenet_v2", 4, 32)
    freezing.train_mode(model, 1, True)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    still = {n for n, m in norms.items() if not m.training}
    assert still == {n for n in norms if not n.startswith(("blocks.6.", "bn2"))}
    within = {id(part) for m in norms.values() for part in m.modules()}  # timm's hold activations
    assert all(m.training for m in model.modules() if id(m) not in within)
    assert all(m.training for m in freezing.train_mode(model, -1, True).modules())
    assert all(m.training for m in freezing.train_mode(model, 1, False).modules())


def test_a_level_too_many_is_an_error_of_train_mode_and_of_the_fraction_too() -> None:
    for ask in (freezing.requested_fraction, lambda m, n: freezing.train_mode(m, n, True)):
        with pytest.raises(ValueError, match="level 5 of a network of 4 blocks and a head"):
            ask(net(), 5)


def test_fractions_count_elements() -> None:
    model = net()  # resnet8 with 4 classes, 1 channel
    freezing.set_level(model, 0)
    total = sum(p.numel() for p in model.parameters())
    assert freezing.fraction(model) == (64 * 4 + 4) / total
    assert freezing.requested_fraction(model, -1) == 1
    assert freezing.fraction(freezing.freeze(model)) == 0
