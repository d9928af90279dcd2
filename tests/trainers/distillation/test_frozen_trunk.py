"""The kept maps of teachers' lower blocks: the same numbers as running the teachers whole."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.distillation import frozen_trunk, stage_cache
from trainers.distillation.frozen_trunk import Trunk, first_learning
from trainers.distillation.state import DistillState, StepInputs
from trainers.models import build, outputs

SMALL = ("resnet20", "resnet8x4", "shufflenet_v2", "vgg8", "wrn_16_2")


@pytest.mark.parametrize("name", SMALL)
def test_a_net_can_be_resumed_after_any_of_its_blocks(name: str) -> None:
    net, x = build(name, 10, 32).eval(), torch.rand(3, 3, 32, 32)
    whole = outputs(net, x, maps=True)
    with torch.no_grad():
        for first, before in enumerate([x, *whole.maps[:-1]]):
            assert torch.equal(net.forward_blocks(x, 0, first), before)
            assert torch.equal(net.forward_blocks(before.clone(), first), whole.maps[-1])
    assert first == len(net.blocks_in_order()) - 1


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([1], 3), ([2, 1], 2), ([0, 3], 1), ([0], None), ([4], None), ([1, -1], None)],
)
def test_only_what_learns_in_no_stage_is_kept(levels: list[int], expected: int | None) -> None:
    assert first_learning(build("resnet8", 10, 16), levels) == expected


def test_other_nets_are_run_whole() -> None:
    assert first_learning(build("timm:test_resnet", 10, 32), [1]) is None


def prepared(world: World, *overrides: str, **method: Any) -> tuple[StepInputs, DistillState]:
    config = tiny.rung("L3", *overrides, **method)
    state = tiny.new_state(config, world)
    return StepInputs.prepare(config, world.data, world.teachers, state), state


@pytest.mark.parametrize("numerics", ["float32", "bfloat16"])
def test_outputs_above_a_trunk_are_those_of_the_whole_net(numerics: str, world: World) -> None:
    inputs, state = prepared(world, f"numerics={numerics}")
    kept, rows = stage_cache.teacher_trunks(inputs, state), torch.tensor([3, 0, 399, 7])
    teacher, trunk = state.teachers[0], kept[0]
    assert trunk is not None
    assert trunk.train.dtype == getattr(torch, numerics)
    for maps in (trunk.train, trunk.val):
        assert maps.is_contiguous(memory_format=inputs.numerics.layout())
    with inputs.numerics.autocast(inputs.device):
        live, above = outputs(teacher, inputs.views.batch(rows)), trunk.outputs(teacher, rows)
    close = {"rtol": 1e-5, "atol": 1e-5} if numerics == "float32" else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(above.logits, live.logits, **close)
    torch.testing.assert_close(above.pooled, live.pooled, **close)
    whole, banked = (stage_cache.network_bank(inputs, teacher, which) for which in (None, trunk))
    for one, other in zip((*whole.train, *whole.val), (*banked.train, *banked.val), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=0.05)


def test_gradients_reach_the_learning_blocks_alone(world: World) -> None:
    inputs, state = prepared(world)
    teacher = state.teachers[0]
    for name, parameter in teacher.named_parameters():
        parameter.requires_grad_(name.startswith(("layer3", "fc")))
    stage_cache.tuned_outputs(inputs, state, torch.arange(8))[0].logits.sum().backward()
    moved = {n.split(".")[0] for n, p in teacher.named_parameters() if p.grad is not None}
    assert moved == {"layer3", "fc"}


@pytest.mark.parametrize(
    "levels", [[2, 1], *(pytest.param(x, marks=pytest.mark.thorough) for x in ([1], [0, 1]))]
)
def test_a_run_with_trunks_is_the_run_without(
    levels: list[int], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.rung("L3", *tiny.TWO_STAGES, teacher_levels=levels, a_lr=3e-3)
    run = tiny.run(config, world)
    assert all(isinstance(one, Trunk) for one in run.state.trunks or [None])
    monkeypatch.setattr(frozen_trunk, "MOST", 0)
    whole = tiny.run(config, world)
    assert whole.state.trunks == [None, None]
    assert run.losses() == pytest.approx(whole.losses(), rel=1e-3)
    for own, other in zip(run.state.teachers, whole.state.teachers, strict=True):
        for one, same in zip(own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, same, rtol=1e-2, atol=1e-3)


def test_trunks_share_their_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, state = prepared(world)
    images = len(world.data.train.labels) * inputs.views.count + len(world.data.val.labels)
    one = images * 32 * 4 * 4 * 4  # of layer2's maps, float32
    for room, expected in ((one - 1, 0), (one, 1), (2 * one, 2)):
        monkeypatch.setattr(frozen_trunk, "MOST", room)
        state.trunks = None
        assert sum(t is not None for t in stage_cache.teacher_trunks(inputs, state)) == expected


def test_fresh_views_and_mixed_precision_given_up(world: World) -> None:
    inputs, state = prepared(world, "data.views=0")
    assert stage_cache.teacher_trunks(inputs, state) == [None, None]
    inputs, state = prepared(world, "numerics=bfloat16")
    stage_cache.teacher_trunks(inputs, state)
    state.load_state_dict(state.state_dict())
    assert state.trunks is None  # rebuilt, perhaps in another precision


def test_an_empty_validation_split(world: World) -> None:
    inputs, state = prepared(world)
    nothing = world.data.val._replace(
        pixels=world.data.val.pixels[:0], labels=world.data.val.labels[:0]
    )
    found = frozen_trunk.trunks(
        state.teachers, [1], inputs.views, nothing, inputs.normalise, inputs.numerics
    )
    trunk = found[0]
    assert trunk is not None
    assert trunk.val_rows(nn.Module.eval(state.teachers[0]), inputs.numerics).logits.shape == (
        0,
        10,
    )
