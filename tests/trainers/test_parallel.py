"""Several ranks of one run: the same numbers as one process, up to rounding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ranks import together
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import parallel
from trainers.errors import UserError
from trainers.finetune import FinetuneState, finetune
from trainers.metrics import SKIPPED


def test_shares_are_even_and_nobody_has_none() -> None:
    shares = [parallel.own_rows(rank, 3, 50) for rank in range(3)]
    assert [range(50)[share] for share in shares] == [range(16), range(16, 33), range(33, 50)]
    with pytest.raises(UserError, match=r"runtime\.ranks=4: a batch of 3"):
        parallel.own_rows(0, 4, 3)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).double()


def _step(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Gradients and buffers after one step whose loss mixes the rows of the batch."""
    if parallel.alone():
        out = net(images)
    else:
        (out,) = parallel.in_shares(net, images, lambda x: (net(x),))
    (out.softmax(1).T @ out).square().mean().backward()
    parallel.sum_gradients()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return {"out": out.detach(), **gradients, **dict(net.named_buffers())}


def test_a_step_of_unequal_shares_is_that_of_one_process(tmp_path: Path) -> None:
    images = 5 + torch.randn(7, 3, 8, 8, dtype=torch.float64)
    expected = _step(_net(), images)
    found = together(3, tmp_path / "ranks", lambda: _step(_net(), images))
    for one in found:
        assert not tiny.differences(one, found[0])
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [3, 11, 40])
def test_a_table_that_ranks_make_together_is_that_of_one(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "ROUND", 2)
    whole = torch.randn(rows, 5)
    made: list[int] = []

    def make(start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in range(start, stop):
            made.append(chunk)
            part = whole[2 * chunk : 2 * chunk + 2]
            yield part.half(), part

    def work() -> Any:
        parts = list(parallel.in_parts(rows, 2, make))
        return [torch.cat(column) for column in zip(*parts, strict=True)], made

    found = together(3, tmp_path / "ranks", work)
    for (halves, full), _ in found:
        assert torch.equal(full, whole)
        assert torch.equal(halves, whole.half())
    chunks, each = -(-rows // 2), [own for _, own in found]
    if chunks >= 3:
        assert sorted(chunk for own in each for chunk in own) == list(range(chunks))
        assert min(map(len, each)) >= 1
    else:
        assert each == [[0, 1]] * 3


def test_dropout_is_a_ranks_own_and_all_draw_the_same_afterwards(tmp_path: Path) -> None:
    def work() -> tuple[Tensor, Tensor]:
        torch.manual_seed(7)
        net = nn.Dropout(0.5)
        images = torch.ones(2, 64)
        (out,) = parallel.in_shares(net, images, lambda x: (net(x),))
        return out, torch.rand(3)

    (first, after), (second, also) = together(2, tmp_path / "ranks", work)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(3))
    assert torch.equal(after, also)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


# Largest relative difference of an epoch's loss from that of one process. AdamW divides by the
# square root of tiny second moments, which makes more of rounding than SGD does.
CASES = {"CE": 1e-3, "KD": 1e-3, "L2": 1e-3, "L3": 5e-2, "crd": 1e-3, "at": 1e-3}
FEW_STEPS = ["mix.start=0", "optim.batch=100", "budget.student_epochs=2"]
ONE_STAGE = ["method.num_stages=1", "budget.adapt_epochs=2"]


@pytest.mark.parametrize(
    "name",
    [
        "L2",
        *(pytest.param(one, marks=pytest.mark.thorough) for one in CASES if one != "L2"),
    ],
)
def test_two_ranks_train_as_one(name: str, world: World, tmp_path: Path) -> None:
    if name in ("crd", "at"):
        config = tiny.baseline(name, *FEW_STEPS)
    else:
        config = tiny.rung(name, *FEW_STEPS, *(ONE_STAGE if name.startswith("L") else []))

    def work() -> Any:
        run = tiny.run(config, world)
        return tiny.clone(run.state.student), run.losses()

    (_, alone), ((first, found), (second, also)) = work(), together(2, tmp_path / "ranks", work)
    assert not tiny.differences((first, found), (second, also))  # of the ranks: bit for bit
    assert found == pytest.approx(alone, rel=CASES[name])


@pytest.mark.thorough
def test_a_teacher_is_fine_tuned_by_two_ranks_as_by_one(world: World, tmp_path: Path) -> None:
    config = tiny.teacher_config(0, "teacher.0.recipe.mix.start=0")

    def work() -> Any:
        state = FinetuneState.new(config)
        epochs = list(finetune(config, world.data, state))
        return tiny.clone(state.model), [epoch.metrics["train/loss/total"] for epoch in epochs]

    (_, alone), ((first, found), (second, also)) = work(), together(2, tmp_path / "ranks", work)
    assert not tiny.differences((first, found), (second, also))
    assert found == pytest.approx(alone, rel=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_by_two_ranks(precision: str, world: World, tmp_path: Path) -> None:
    config = tiny.rung("KD", *FEW_STEPS, f"numerics={precision}")

    def work() -> Any:
        run = tiny.run(config, world)
        return (
            tiny.clone(run.state.student),
            run.losses(),
            [one.metrics.get(SKIPPED) for one in run.epochs],
        )

    alone, (found, also) = work(), together(2, tmp_path / "ranks", work)
    assert not tiny.differences(found, also)
    assert found[1] == pytest.approx(alone[1], rel=1e-2)
    assert found[2] == alone[2]  # as many steps are skipped
