"""What every training loop shares: the steps of an epoch, optimisers, selection, evaluation."""

import math
import mmap

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.tiny import stop_after
from trainers import loop
from trainers.errors import Interrupted
from trainers.loop import (
    NonFinite,
    Progress,
    check_finite,
    keep_best,
    right,
    run_steps,
    snapshot,
    top1,
    validation,
)

STREAM = (0, "test", "draws", 3)


def never() -> bool:
    return False


def draws(i: int) -> dict[str, Tensor]:
    return {"index": torch.tensor(float(i)), "draw": torch.rand(())}


def test_an_epoch_gives_the_mean_of_each_value_and_starts_the_next_at_zero() -> None:
    progress, calls = Progress(slot=4), []

    def step(i: int) -> dict[str, Tensor]:
        calls.append(i)
        return {"square": torch.tensor(float(i * i)), "half": torch.tensor(0.5).half()}

    means = run_steps(progress, 5, step, never, STREAM)
    assert calls == [0, 1, 2, 3, 4]
    assert means["square"] == 6.0
    assert means["half"] == 0.5
    assert means["steps_seconds"] > 0
    assert progress == Progress(slot=4)


def test_sums_are_kept_in_double_precision() -> None:
    values = iter([1e8] + [1.0] * 999)
    means = run_steps(Progress(), 1000, lambda _: {"x": torch.tensor(next(values))}, never, STREAM)
    assert means["x"] == (1e8 + 999) / 1000


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_resuming_inside_an_epoch_gives_the_same_draws_and_means(cut: int) -> None:
    whole = run_steps(Progress(), 5, draws, never, STREAM)
    progress = Progress()
    with pytest.raises(Interrupted):
        run_steps(progress, 5, draws, stop_after(cut), STREAM)
    assert progress.step == cut
    assert progress.seconds > 0
    torch.manual_seed(77)  # what another process drew in between
    rest = run_steps(Progress(**progress.as_dict()), 5, draws, never, STREAM)
    for means in (whole, rest):
        means.pop("steps_seconds")
    assert rest == whole


def test_stopping_at_once_does_no_step() -> None:
    progress = Progress()
    with pytest.raises(Interrupted):
        run_steps(progress, 5, draws, lambda: True, STREAM)
    assert progress.step == 0
    assert progress.sums == {}


def test_a_stop_after_the_last_step_ends_the_epoch_first() -> None:
    assert run_steps(Progress(), 5, draws, stop_after(5), STREAM)["index"] == 2.0


def test_every_step_has_a_stream_of_its_own() -> None:
    def drawn(stream: tuple) -> list[float]:
        found: list[float] = []

        def step(i: int) -> dict[str, Tensor]:
            found.append(float(torch.rand(())))
            return draws(i)

        run_steps(Progress(), 3, step, never, stream)
        return found

    assert drawn(STREAM) == drawn(STREAM)
    assert (
        len({*drawn(STREAM), *drawn((1, "test", "draws", 3)), *drawn((0, "test", "draws", 4))}) == 9
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_it(bad: float) -> None:
    with pytest.raises(NonFinite, match=r"^loss is not finite"):
        run_steps(
            Progress(),
            3,
            lambda i: {"loss": torch.tensor(bad if i == 1 else 0.0), "fine": torch.tensor(1.0)},
            never,
            STREAM,
        )


def test_a_value_that_is_not_finite_is_reported_even_where_the_epoch_is_interrupted() -> None:
    with pytest.raises(NonFinite):
        run_steps(Progress(), 3, lambda _: {"x": torch.tensor(math.nan)}, stop_after(1), STREAM)


def test_weights_and_statistics_must_be_finite() -> None:
    one, other = nn.BatchNorm1d(3), nn.Linear(2, 2)
    check_finite(one, other)
    check_finite()
    other.bias.data[1] = math.inf
    with pytest.raises(NonFinite, match="a weight"):
        check_finite(one, other)
    other.bias.data[1] = 0
    one.running_var[0] = math.nan
    with pytest.raises(NonFinite):
        check_finite(other, one)


def after(accuracies: list[float | None], select: str) -> dict:
    model, best = nn.Linear(1, 1, bias=False), {}
    for epoch, accuracy in enumerate(accuracies):
        nn.init.constant_(model.weight, epoch)
        keep_best(best, accuracy, epoch, model, select)
    nn.init.constant_(model.weight, -1)
    assert best["weights"]["weight"].item() == best["epoch"]
    return best


@pytest.mark.parametrize(
    ("accuracies", "select", "epoch"),
    [
        ([0.1, 0.5, 0.3], "best", 1),
        ([0.1, 0.5, 0.5, 0.2], "best", 1),
        ([0.0, 0.0], "best", 0),
        ([0.1, 0.5, 0.3], "last", 2),
        ([None, None], "last", 1),
        ([None, None], "best", 1),
    ],
)
def test_the_selected_epoch(accuracies: list, select: str, epoch: int) -> None:
    best = after(accuracies, select)
    assert best["epoch"] == epoch
    assert best["top1"] == accuracies[epoch]


def test_a_snapshot_is_a_copy() -> None:
    model = nn.BatchNorm1d(2)
    copy = snapshot(model)
    assert copy.keys() == model.state_dict().keys()
    model.weight.data += 1
    model.running_mean += 1
    assert copy["weight"].tolist() == [1, 1]
    assert copy["running_mean"].tolist() == [0, 0]
    assert not copy["weight"].requires_grad


LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0]])


def test_accuracy_and_validation_loss() -> None:
    y = torch.tensor([0, 2, 0, 0])
    assert top1(LOGITS, y) == 0.75
    found = validation(LOGITS, y)
    want = [
        -math.log(math.exp(row[k]) / sum(map(math.exp, row)))
        for row, k in zip(LOGITS.tolist(), y.tolist(), strict=True)
    ]
    assert found == {"val/top1": 0.75, "val/loss": pytest.approx(sum(want) / 4, rel=1e-6)}
    assert validation(LOGITS[:0], y[:0]) == {}


def test_training_accuracy_of_mixed_images_counts_both_labels() -> None:
    y = torch.tensor([0, 1, 2, 0])
    assert right(LOGITS, y[None], torch.ones(1)).item() == 0.5
    shares = torch.tensor([0.75, 0.25])
    both = torch.stack([y, torch.tensor([1, 2, 0, 0])])
    assert right(LOGITS, both, shares).item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    both = torch.stack([y, torch.tensor([0, 2, 0, 0])])
    assert right(LOGITS, both, shares).item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.75)
    assert right(LOGITS, both[:, :2], shares).item() == 0.5 * 0.75 + 0.25  # two have labels


def test_peak_memory_is_reset() -> None:
    cpu = torch.device("cpu")
    loop.reset_peak_memory(cpu)
    before = loop.peak_memory_mb(cpu)
    ballast = mmap.mmap(-1, 64 * 2**20)  # not from what the allocator has in reserve
    ballast.write(bytes(64 * 2**20))
    grown = loop.peak_memory_mb(cpu)
    assert grown - before > 50
    ballast.close()
    if loop._CLEAR_REFS.exists():
        loop.reset_peak_memory(cpu)
        assert loop.peak_memory_mb(cpu) < grown - 30
