"""Specialised teachers: which classes each has, and that it sees no image of the others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import finetune as stage
from trainers import losses
from trainers.data import class_overlap
from trainers.data.class_overlap import class_lists, images_of
from trainers.finetune import FinetuneConfig, FinetuneState, finetune


@given(st.integers(2, 200), st.integers(0, 100), st.integers(1, 5), st.integers(0, 9))
def test_common_classes_and_equal_shares(c: int, percent: int, teachers: int, seed: int) -> None:
    lists = class_lists(c, percent, teachers, seed)
    common = c * percent // 100
    assert len(lists) == teachers
    assert set.union(*map(set, lists)) == set(range(c))
    if teachers > 1:
        assert len(set.intersection(*map(set, lists))) == common
    assert sum(map(len, lists)) == c - common + teachers * common  # a rest class has one teacher
    assert max(map(len, lists)) - min(map(len, lists)) <= 1
    assert lists == [sorted(set(own)) for own in lists]
    assert lists == class_lists(c, percent, teachers, seed)


def test_100_is_all_and_another_seed_shares_otherwise() -> None:
    assert class_lists(10, 100, 2, 0) == [list(range(10))] * 2
    assert class_lists(100, 50, 2, 0) != class_lists(100, 50, 2, 1)
    halves = class_lists(100, 0, 2, 0)
    assert [len(own) for own in halves] == [50, 50]
    assert halves[0] != list(range(50))  # shuffled


def test_images_of_some_classes() -> None:
    assert images_of([2, 0], torch.tensor([0, 1, 2, 2, 3, 0])).tolist() == [0, 2, 3, 5]
    assert images_of([7], torch.tensor([0, 1])).tolist() == []


# Training -----------------------------------------------------------------------------------

SMALL = ["overlap=0", "teacher.0.recipe.epochs=3", "teacher.0.recipe.mix.mixup_alpha=0.2"]


def config(*overrides: str) -> FinetuneConfig:
    return tiny.teacher_config(0, *SMALL, *overrides)


def test_a_teacher_sees_its_own_classes_alone_and_keeps_all_outputs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    c, seen, rows = config(), [], []
    own = c.teacher.classes
    assert own is not None
    assert len(own) == 5
    real = stage.Views.crops

    def crops(views, rows_SB):
        rows.extend(rows_SB)
        seen.append(views.labels(rows_SB).flatten())
        return real(views, rows_SB)

    monkeypatch.setattr(stage.Views, "crops", crops)
    state = FinetuneState.new(c)
    epochs = list(finetune(c, world.data, state))
    assert set(torch.cat(seen).tolist()) == set(own)
    images = len(images_of(own, world.data.train.labels))
    one_epoch = torch.cat(rows[: len(rows) // 3]) // 2
    assert len(one_epoch) == len(set(one_epoch.tolist())) == images // 50 * 50
    assert set((torch.cat(rows) % 2).tolist()) == {0, 1}  # every view
    logits = tiny.frozen_teacher(state.model, c, world.data).bank.val.logits.float()
    labels = world.data.val.labels
    mine = class_overlap.images_of(own, labels)
    last = epochs[-1].metrics
    right = (logits.argmax(1) == labels).float()
    assert logits.shape == (len(labels), 10)
    assert last["val/top1"] == pytest.approx(float(right[mine].mean()))
    assert last["val/top1_all_classes"] == pytest.approx(float(right.mean()))
    loss = losses.cross_entropy(logits[mine], labels[mine]).mean()
    assert last["val/loss"] == pytest.approx(float(loss), rel=1e-2)
    assert state.best["top1"] == max(e.metrics["val/top1"] for e in epochs)


def test_it_learns_its_classes_and_not_the_others(world: World) -> None:
    c = config("teacher.0.recipe.epochs=25", "teacher.0.recipe.mix.mixup_alpha=0")
    last = list(finetune(c, world.data, FinetuneState.new(c)))[-1].metrics
    assert last["val/top1"] > 0.7
    assert last["val/top1_all_classes"] < last["val/top1"] - 0.2


def test_resuming_ends_the_same(world: World) -> None:
    whole = FinetuneState.new(config())
    list(finetune(config(), world.data, whole))
    state = FinetuneState.new(config())
    state.stop = tiny.stop_after(3)
    tiny.until_interrupted(lambda: finetune(config(), world.data, state))
    assert not state.progress.done
    on = FinetuneState.new(config())
    on.load_state_dict(tiny.through_a_file(state.state_dict()))
    list(finetune(config(), world.data, on))
    assert tiny.differences(on.selected(), whole.selected()) == []


def test_all_classes_listed_are_as_none(world: World) -> None:
    assert tiny.teacher_config(0, "overlap=100").teacher.classes is None
    every = tiny.teacher_config(0, f"teacher.0.classes={list(range(10))}").teacher
    assert every == tiny.teacher_config(0).teacher
    assert tiny.teacher_config(0, "teacher.0.classes=[4,2]").teacher.classes == [2, 4]
    assert tiny.teacher_config(1, "teacher.0.classes=[4,2]").teacher.classes is None
