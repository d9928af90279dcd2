"""Images without a label: no label of theirs is seen, every method learns from them, and batches
hold both kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pipeline.stages.images import in_file
from tests.ranks import together
from tests.trainers import tiny
from tests.trainers.methods.parts import BASELINES
from tests.trainers.tiny import World
from trainers import data as data_module
from trainers import metrics
from trainers.data import (
    DATASETS,
    DataConfig,
    DataDamaged,
    TrainingData,
    Unlabelled,
    load,
    partition,
)
from trainers.data.base import Raw
from trainers.data.views import Views
from trainers.distillation import stage_cache
from trainers.distillation.config import DistillConfig
from trainers.distillation.placebos import Placebo
from trainers.distillation.stage_cache import network_bank
from trainers.distillation.state import StepInputs
from trainers.finetune import FinetuneState, finetune
from trainers.methods.base import StepPosition
from trainers.mixing import MixConfig, batch_sizes, plan_epoch
from trainers.numerics import Numerics
from trainers.view_bank import ViewOutputs

FEW = ("data.train_limit=40", "data.unlabelled=90", "data.val_limit=60", "data.teacher_limit=150")
STEPS = ("optim.batch=24", "optim.steps_per_epoch=3", "budget.student_epochs=4")
ASIB = ("method.num_stages=2", "budget.adapt_epochs=4", "mix.start=0.5")


def small(**options: object) -> DataConfig:
    values = {"train_limit": 40, "unlabelled": 90, "val_limit": 60, "views": 2, "image_size": 8}
    return DataConfig(**{**values, "crop_pad": 1, **options})


@pytest.fixture(scope="module")
def raw() -> Raw:
    return DATASETS["digits"](small())


@pytest.fixture(scope="module")
def few() -> World:
    """Two teachers trained on 150 images; 40 labelled ones and 90 others for a student."""
    config = tiny.compose("KD", *FEW)
    splits = load(config.data)
    data, teachers = TrainingData(splits.train, splits.val, splits.unlabelled), []
    own = load(replace(config.data, train_limit=150, unlabelled=0))
    for number in (0, 1):
        teacher = tiny.teacher_config(number, *FEW)
        state = FinetuneState.new(teacher)
        list(finetune(teacher, TrainingData(own.train, own.val), state))
        teachers.append(tiny.frozen_teacher(state.model, teacher, data))
    return World(splits, data, teachers)


# Which images --------------------------------------------------------------------------------


def test_parts_do_not_overlap_and_a_larger_number_contains_the_smaller(raw: Raw) -> None:
    found = partition(raw, small())
    assert [len(part) for part in found] == [40, 60, 90]
    assert len(set().union(*map(set, found))) == 190
    every = partition(raw, small(unlabelled="all")).unlabelled
    assert list(every[:90]) == list(found.unlabelled)
    rest = len(raw.train_labels) - round(len(raw.train_labels) * 0.1)  # validation is no pool
    assert len(every) == rest - 40
    fewer = partition(raw, small(train_limit=20, unlabelled="all"))
    assert set(every) <= {*fewer.unlabelled, *fewer.train}


def test_labelled_images_are_the_same_with_and_without_others() -> None:
    alone, both = load(small(unlabelled=0)), load(small())
    assert alone.unlabelled is None
    assert alone.digest == both.digest
    views = [Views(s.train, small(), Numerics(), s.unlabelled) for s in (alone, both)]
    rows = torch.arange(80)
    assert torch.equal(views[0].batch(rows), views[1].batch(rows))


def test_their_order_is_not_that_of_the_files(raw: Raw) -> None:
    chosen = partition(raw, small(unlabelled="all")).unlabelled
    assert list(chosen) != sorted(chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_limit": None}, "all 1294 training images have labels; give data.train_limit"),
        ({"unlabelled": 1255}, "data.unlabelled=1255: 1254 images are left"),
    ],
)
def test_too_many_are_an_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataDamaged, match=message):
        load(small(**options))


def test_images_without_labels_of_the_data_sets_own(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = 255 - raw.test_pixels[:30]
    monkeypatch.setitem(DATASETS, "digits", lambda _: raw._replace(unlabelled=own))
    found = load(small(train_limit=None, unlabelled="all")).unlabelled
    assert found is not None
    known = {image.tobytes() for image in own}
    assert {image.numpy().tobytes() for image in found.pixels} == known
    among = load(small(unlabelled="all")).unlabelled
    assert among is not None
    assert len(among.pixels) == 1294 - 40 + 30
    assert sum(image.numpy().tobytes() in known for image in among.pixels) == 30


# No label ------------------------------------------------------------------------------------


def test_the_type_has_no_labels_and_the_label_of_one_is_an_error(few: World) -> None:
    assert Unlabelled._fields == ("pixels", "digest", "mapped")
    views = Views(few.data.train, small(), Numerics(), few.data.unlabelled)
    assert (views.labelled, views.total, views.rows) == (40, 130, 260)
    views.labels(torch.tensor([79]))
    with pytest.raises(IndexError):
        views.labels(torch.tensor([80]))


class Lied(NamedTuple):
    """A data set whose files have other labels for the images that are used without theirs."""

    raw: Raw

    def __call__(self, config: DataConfig) -> Raw:
        labels = self.raw.train_labels.copy()
        chosen = partition(self.raw, config).unlabelled
        labels[chosen] = (labels[chosen] + 1 + chosen) % 10
        return self.raw._replace(train_labels=labels)


def test_their_labels_change_nothing(raw: Raw, few: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another data set with the same split, everything is the same bit for bit."""
    chosen, lied = partition(raw, small()), Lied(raw)
    assert (lied(small()).train_labels != raw.train_labels).sum() > 70
    monkeypatch.setitem(DATASETS, "digits", lied)
    monkeypatch.setattr(data_module, "partition", lambda *_: chosen)
    other = load(small())
    assert other.digest == few.splits.digest
    assert other.unlabelled is not None
    assert few.splits.unlabelled is not None
    assert other.unlabelled.digest == few.splits.unlabelled.digest
    config = tiny.rung("L3", *FEW, *STEPS, *ASIB)
    changed = few._replace(data=TrainingData(other.train, other.val, other.unlabelled))
    one, two = tiny.run(config, few), tiny.run(config, changed)
    assert tiny.differences(one.state.state_dict(), two.state.state_dict()) == []
    assert tiny.without_cost(one.epochs) == tiny.without_cost(two.epochs)


# Batches -------------------------------------------------------------------------------------


def test_batches_hold_both_kinds_at_fixed_places() -> None:
    sizes = batch_sizes(10, 100, batch=8, share=0.25, steps=9)
    assert sizes == (6, 2, 9)
    plan = plan_epoch(
        *(0, "student", 0),
        images=10,
        unlabelled=100,
        views=3,
        sizes=sizes,
        mix=MixConfig(1.0, 1.0),
        size=8,
        device=torch.device("cpu"),
    )
    assert plan.rows.shape == (9, 8)
    assert plan.labelled == 6
    images = plan.rows // 3
    assert bool((images[:, :6] < 10).all())
    assert bool((images[:, 6:] >= 10).all())
    assert int(images.max()) < 110
    for row, mix in zip(images, plan.mixes, strict=True):
        assert len(set(row.tolist())) == 8  # no image twice in a batch
        assert mix.partner is not None
        assert sorted(mix.partner[:6].tolist()) == [*range(6)]
        assert sorted(mix.partner[6:].tolist()) == [*range(6, 8)]
    assert len(set(images[:, 6:].flatten().tolist())) == 18  # one pass: all different


def test_passes_are_shuffled_again_and_views_are_drawn_again() -> None:
    plan = plan_epoch(
        *(0, "student", 0),
        images=4,
        views=64,
        sizes=batch_sizes(4, 0, batch=4, steps=6),
        mix=None,
        size=8,
        device=torch.device("cpu"),
    )
    images, views = plan.rows // 64, plan.rows % 64
    assert all(sorted(row.tolist()) == [0, 1, 2, 3] for row in images)
    assert len({tuple(row.tolist()) for row in images}) > 1
    assert len(set(views.flatten().tolist())) > 12


@pytest.mark.parametrize(
    ("images", "others", "batch", "share", "steps", "expected"),
    [
        (1000, 0, 128, 0.0, None, (128, 0, 7)),  # as without unlabelled images
        (50, 0, 128, 0.0, None, (50, 0, 1)),
        (200, 20000, 128, 0.5, 15, (64, 64, 15)),
        (200, 20000, 128, 0.5, None, (64, 64, 157)),  # one pass over both
        (200, 20000, 128, 0.0, 15, (128, 0, 15)),  # what has no use for them
        (20, 20000, 128, 0.5, 15, (20, 64, 15)),
        (200, 5, 128, 0.5, 1, (123, 5, 1)),
        (200, 20000, 128, 0.99, 1, (1, 127, 1)),
    ],
)
def test_sizes_of_batches(images, others, batch, share, steps, expected) -> None:
    assert batch_sizes(images, others, batch=batch, share=share, steps=steps) == expected


def test_a_placebos_donor_is_of_the_same_kind(few: World) -> None:
    config = tiny.rung("L2_null", *FEW, *STEPS, *ASIB)
    inputs = StepInputs.prepare(config, few.data, few.teachers, tiny.new_state(config, few))
    placebo = Placebo("image", inputs, 0)
    rows = torch.arange(inputs.views.rows)
    other = placebo.other(rows)
    assert torch.equal(other < 80, rows < 80)
    assert torch.equal(other % 2, rows % 2)
    assert not bool((other == rows).any())
    for kind in ("teachers", "class"):
        with pytest.raises(ValueError, match="label of every image"):
            Placebo(kind, inputs, 0)


# Methods -------------------------------------------------------------------------------------

RUNGS = ("KD", "L0", "L1", "L2", "L3", "L4", "side_cccp_ppf", "side_asib_cccp", "L2_null")
SWITCHES = {
    "sample gate": ("L2", ["kd_sample_gate=true", "query=live", "kd_sample_max_ratio=0.25"]),
    "label guard": ("L2", ["kd_label_guard=true", "disagree_mode=both_wrong"]),
    "decoupled": ("L2", ["use_dkd_with_synergy=true", "feat_kd_alpha=0.1"]),
    "tokens": ("L2_null_tokens", []),
    "folds": ("L2", ["query=none", "folds=3", "residual=true"]),
    "by label": ("L2_null_by_label", []),
}


def config_of(name: str, *more: str) -> DistillConfig:
    if name in BASELINES:
        own = ("method.negatives=32",) if name == "crd" else ()
        return tiny.baseline(name, *FEW, *STEPS, "mix.start=0.5", *own, *more)
    cfg, values = SWITCHES.get(name, (name, []))
    stages = ASIB if cfg not in ("CE", "KD") else ASIB[2:]
    return tiny.rung(cfg, *FEW, *STEPS, *stages, *(f"method.{v}" for v in values), *more)


def weights(config: DistillConfig, world: World) -> dict[str, torch.Tensor]:
    return tiny.run(config, world).state.student.state_dict()


@pytest.mark.thorough
@pytest.mark.parametrize("views", ["data.views=2", "data.views=0"])
@pytest.mark.parametrize("name", [*RUNGS, *SWITCHES, *BASELINES])
def test_every_method_learns_from_them(name: str, views: str, few: World) -> None:
    """Finite, the same twice, and not what it learns from the labelled images alone."""
    config = config_of(name, views)
    found = tiny.run(config, few)
    student = found.state.student.state_dict()
    assert tiny.differences(student, weights(config, few)) == []
    alone = few._replace(data=few.data._replace(unlabelled=None))
    short = [
        teacher._replace(bank=teacher.bank._replace(train=teacher.bank.train.at(torch.arange(80))))
        for teacher in few.teachers
    ]
    assert tiny.differences(student, weights(config, alone._replace(teachers=short)))


@pytest.mark.parametrize("name", ["L2", "dkd", "crd"])
def test_a_method_learns_from_them(name: str, few: World) -> None:
    config = config_of(name)
    found = weights(config, few)
    other = few.data.unlabelled
    assert other is not None
    turned = few._replace(
        data=few.data._replace(unlabelled=other._replace(pixels=255 - other.pixels))
    )
    assert tiny.differences(found, weights(config, turned))


def test_cross_entropy_alone_ignores_them(few: World) -> None:
    config = config_of("CE")
    alone = few._replace(data=few.data._replace(unlabelled=None))
    assert tiny.differences(weights(config, few), weights(config, alone)) == []


def test_an_interrupted_run_ends_as_if_it_was_not(few: World) -> None:
    config = config_of("L3")
    whole = tiny.run(config, few)
    state = tiny.new_state(config, few)
    state.stop = tiny.stop_after(14)
    tiny.until_interrupted(lambda: tiny.epochs_of(config, few, state))
    again = tiny.new_state(config, few)
    again.load_state_dict(tiny.through_a_file(state.state_dict()))
    list(tiny.epochs_of(config, few, again))
    assert tiny.differences(whole.state.state_dict(), again.state_dict()) == []


def test_mapped_images_are_the_same_bits(few: World, tmp_path: Path) -> None:
    train, other = few.data.train, few.data.unlabelled
    assert other is not None
    mapped = [in_file(part, tmp_path / f"{part.digest}.u8") for part in (train, other)]
    one = Views(train, small(), Numerics(), other)
    two = Views(mapped[0], small(), Numerics(), mapped[1])
    assert two._windows is None
    rows = torch.tensor([0, 259, 80, 79, 3, 200])
    assert torch.equal(one.batch(rows), two.batch(rows))


def test_steps_count_the_same_for_both_steps(few: World) -> None:
    config = config_of("L2")
    inputs = StepInputs.prepare(config, few.data, few.teachers, tiny.new_state(config, few))
    fusion = inputs.plan("fusion", StepPosition(0, 4), None, unlabelled=False)
    student = inputs.plan("student", StepPosition(0, 4), None, unlabelled=True)
    assert fusion.rows.shape == student.rows.shape == (3, 24)
    assert (fusion.labelled, student.labelled) == (24, 12)
    assert int(fusion.rows.max()) < 80


def test_without_a_query_the_student_is_run_on_labelled_images_alone(
    few: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.compose("L2", *FEW, *STEPS, *ASIB, "method.query=none")

    def digests() -> list[float]:
        epochs = tiny.epochs_of(config, few, tiny.new_state(config, few))
        found = [pair for one in epochs for pair in one.metrics.items()]
        return [value for name, value in found if name.startswith(metrics.STATE)]

    own = stage_cache._labelled_rows
    seen = []

    def counted(inputs: StepInputs, model: torch.nn.Module) -> ViewOutputs:
        seen.append(own(inputs, model))
        return seen[-1]

    monkeypatch.setattr(stage_cache, "_labelled_rows", counted)
    found = digests()
    assert len(seen) == 2  # stages
    monkeypatch.setattr(stage_cache, "_labelled_rows", lambda i, m: network_bank(i, m).train)
    assert found
    assert digests() == found
    views = Views(few.data.train, config.data, config.numerics, few.data.unlabelled)
    read, unread = seen[0].logits[: 40 * views.count], seen[0].logits[128:]
    assert len(seen[0].logits) == views.rows
    assert read.any(1).all()
    assert len(unread)
    assert not unread.any()


@pytest.mark.thorough
def test_two_ranks_share_batches_of_both_kinds(few: World, tmp_path: Path) -> None:
    config = tiny.rung("L2", *FEW, *STEPS, *ASIB, "mix.start=0")

    def work() -> list[float]:
        return tiny.run(config, few).losses()

    alone, (found, also) = work(), together(2, tmp_path / "ranks", work)
    assert found == also
    assert found == pytest.approx(alone, rel=1e-3)
