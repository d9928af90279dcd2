"""Fine-tuning a teacher: its epochs, its selection, and resuming after an interruption."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import models
from trainers.data import DataConfig, TrainingData, load
from trainers.data.views import Views
from trainers.finetune import FinetuneConfig, FinetuneState, finetune
from trainers.loop import Epoch, NonFinite
from trainers.mixing import batch_sizes, plan_epoch
from trainers.rng import seeded

MIXED = [
    "teacher.0.recipe.epochs=4",
    "teacher.0.recipe.mix.mixup_alpha=0.2",
    "teacher.0.recipe.mix.cutmix_alpha=1.0",
    "teacher.0.recipe.mix.start=0.5",
    "teacher.0.recipe.label_smoothing=0.1",
]


def config(*overrides: str) -> FinetuneConfig:
    return tiny.teacher_config(0, *MIXED, *overrides)


def train(c: FinetuneConfig, data: TrainingData) -> tuple[FinetuneState, list[Epoch]]:
    state = FinetuneState.new(c)
    return state, list(finetune(c, data, state))


@pytest.fixture(scope="module")
def whole(world: World) -> tuple[FinetuneState, list[Epoch]]:
    return train(config(), world.data)


def test_the_planned_epochs_come_in_order(whole: tuple[FinetuneState, list[Epoch]]) -> None:
    state, epochs = whole
    assert [(e.index, e.stage, e.step) for e in epochs] == [(i, 1, "B") for i in range(4)]
    assert state.progress.done
    for epoch in epochs:
        assert {
            "train/loss/total",
            "train/top1",
            "train/lr",
            "val/top1",
            "val/loss",
            "cost/images_per_second",
            "cost/epoch_seconds",
            "cost/peak_memory_mb",
            "state/teacher",
        } == set(epoch.metrics)
        assert all(isinstance(value, float) for value in epoch.metrics.values())
        assert epoch.metrics["cost/images_per_second"] > 0


def test_a_finished_run_yields_nothing_more(
    whole: tuple[FinetuneState, list[Epoch]], world: World
) -> None:
    assert list(finetune(config(), world.data, whole[0])) == []


def test_it_is_plain_training_on_the_labels(world: World) -> None:
    """Written out: the same weights, views, order and loss, in torch's own words."""
    c = config(
        "teacher.0.recipe.mix.mixup_alpha=0",
        "teacher.0.recipe.mix.cutmix_alpha=0",
        "teacher.0.recipe.epochs=2",
    )
    state, epochs = train(c, world.data)
    with seeded(0, "teacher"):
        net = models.build("resnet8", 10, 8, in_chans=1)
    net = net.to(memory_format=torch.channels_last).train()
    optim = c.teacher.recipe.optim
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, fused=True
    )
    views = Views(world.data.train, c.data, c.numerics)
    for epoch in range(2):
        rows = plan_epoch(
            0,
            "teacher",
            epoch,
            images=200,
            views=2,
            sizes=batch_sizes(200, 0, batch=50),
            mix=None,
            size=8,
            device=torch.device("cpu"),
        ).rows
        total = 0.0
        for i, batch in enumerate(rows):
            optimiser.param_groups[0]["lr"] = optim.lr_at(4 * epoch + i, 4, 2)
            logits = net(views.batch(batch))
            loss = F.cross_entropy(logits, world.data.train.labels[batch // 2], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() / 4
        assert epochs[epoch].metrics["train/loss/total"] == pytest.approx(total, rel=1e-4)
    torch.testing.assert_close(
        dict(net.state_dict()), dict(state.model.state_dict()), rtol=1e-2, atol=1e-3
    )


def resumed(c: FinetuneConfig, data: TrainingData, saved: dict[str, Any], stop=None) -> tuple:
    state = FinetuneState.new(c)
    state.load_state_dict(tiny.through_a_file(saved))
    if stop is not None:
        state.stop = stop
    return state, tiny.until_interrupted(lambda: finetune(c, data, state))


def same_end(found: FinetuneState, want: FinetuneState) -> None:
    assert tiny.differences(found.state_dict(), want.state_dict()) == []
    assert tiny.differences(found.selected(), want.selected()) == []


def test_resuming_at_every_epoch_boundary_ends_the_same(
    whole: tuple[FinetuneState, list[Epoch]], world: World
) -> None:
    want, epochs = whole
    state = FinetuneState.new(config())
    boundaries = [tiny.through_a_file(state.state_dict())]
    for _ in finetune(config(), world.data, state):
        boundaries.append(tiny.through_a_file(state.state_dict()))
    assert len(boundaries) == 5
    for done, saved in enumerate(boundaries):
        found, rest = resumed(config(), world.data, saved)
        same_end(found, want)
        assert tiny.without_cost(rest) == tiny.without_cost(epochs[done:])


@pytest.mark.parametrize(
    "steps", [3, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 5))]
)
def test_cutting_it_off_every_few_steps_ends_the_same(
    steps: int, whole: tuple[FinetuneState, list[Epoch]], world: World
) -> None:
    want, epochs = whole
    saved, found, cuts = FinetuneState.new(config()).state_dict(), [], 0
    while not saved["progress"]["done"]:
        state, more = resumed(config(), world.data, saved, tiny.stop_after(steps))
        found += more
        cuts += 1
        saved = state.state_dict()
    assert cuts >= 16 // steps
    same_end(state, want)
    assert tiny.without_cost(found) == tiny.without_cost(epochs)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_absurd_learning_rate_is_reported(name: str, world: World) -> None:
    c = config("teacher.0.recipe.optim.lr=1e30", f"teacher.0.recipe.optim.name={name}")
    with pytest.raises(NonFinite):
        train(c, world.data)


def test_the_best_epoch_is_selected(world: World) -> None:
    c, kept = config("teacher.0.recipe.epochs=8"), []
    state = FinetuneState.new(c)
    for epoch in finetune(c, world.data, state):
        kept.append((epoch.metrics["val/top1"], tiny.clone(state.model)))
    accuracies = [accuracy for accuracy, _ in kept]
    best = accuracies.index(max(accuracies))
    assert state.best["epoch"] == best
    assert state.best["top1"] == max(accuracies)
    assert tiny.differences(state.selected(), kept[best][1]) == []


@pytest.mark.parametrize("fraction", [0.1, 0.0])
def test_the_last_epoch_can_be_selected_without_validation_images(fraction: float) -> None:
    c = config("select=last", f"data.val_fraction={fraction}")
    splits = load(c.data)
    data = TrainingData(splits.train, splits.val)
    state, epochs = train(c, data)
    assert state.best["epoch"] == 3
    assert tiny.differences(state.selected(), tiny.clone(state.model)) == []
    for epoch in epochs:
        assert ("val/top1" in epoch.metrics) == (fraction > 0)
    assert state.best["top1"] == epochs[-1].metrics.get("val/top1")
    assert len(data.val.labels) == (22 if fraction else 0)


def test_initial_weights_are_the_teachers_seeds(world: World) -> None:
    first = FinetuneState.new(config()).model.state_dict()
    assert tiny.differences(first, FinetuneState.new(config("seed=5")).model.state_dict()) == []
    other = FinetuneState.new(config("teacher.0.seed=5")).model.state_dict()
    assert tiny.differences(first, other) != []
    assert DataConfig().channels == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_can_be_given_up(precision: str, world: World) -> None:
    c = config(f"numerics.precision={precision}", "teacher.0.recipe.epochs=1")
    mixed, epochs = train(c, world.data)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    plain, _ = train(config("teacher.0.recipe.epochs=1"), world.data)
    given_up = FinetuneState.new(c)
    given_up.progress.autocast_off = True
    list(finetune(c, world.data, given_up))
    weights = [s.model.state_dict() for s in (mixed, plain, given_up)]
    assert tiny.differences(weights[0], weights[1]) != []
    assert tiny.differences(weights[2], weights[1]) == []
    assert epochs[0].metrics["train/loss/total"] == pytest.approx(2.3, abs=0.7)


def test_a_resumed_teacher_in_float16_has_its_scale(world: World) -> None:
    """Interrupted where the scale is not what a new state has."""
    c = config("numerics.precision=float16", "teacher.0.recipe.epochs=1")

    def new() -> FinetuneState:
        state = FinetuneState.new(c)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
        return state

    want = new()
    epochs = list(finetune(c, world.data, want))
    assert 0 < epochs[0].metrics["train/skipped"] < 1
    cut = new()
    cut.stop = tiny.stop_after(2)
    assert tiny.until_interrupted(lambda: finetune(c, world.data, cut)) == []
    assert cut.scaler is not None
    assert cut.scaler.get_scale() not in (2.0**20, 2.0**16)
    found = FinetuneState.new(c)
    found.load_state_dict(tiny.through_a_file(cut.state_dict()))
    rest = list(finetune(c, world.data, found))
    same_end(found, want)
    assert tiny.without_cost(rest) == tiny.without_cost(epochs)
