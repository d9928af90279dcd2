"""Cross-fitting: no fusion learns from an image whose logits it gives.

Shapes: N images, F folds, S steps, B a batch.
"""

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import Unlabelled
from trainers.distillation import folds
from trainers.distillation.a_step import AStep
from trainers.distillation.folds import Folds, assigned
from trainers.distillation.objective import objective
from trainers.distillation.stage_cache import synergy_rows
from trainers.distillation.state import PlannedEpoch, StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.base import StepPosition
from trainers.methods.information_plane import information

F = 3
OPTIONS = [f"method.folds={F}", "method.query=none", "budget.adapt_epochs=2", "optim.batch=40"]
ALONE = StepPosition(0, 2, 0, 0, 2)


def inputs_of(world: World, *overrides: str) -> tuple[StepInputs, tiny.DistillState]:
    config = tiny.rung("L1", *OPTIONS, *overrides)
    state = tiny.new_state(config, world)
    return StepInputs.prepare(config, world.data, world.teachers, state), state


@pytest.mark.parametrize("count", [2, 3, 7])
def test_folds_are_of_equal_size_in_all_and_of_every_class(count: int) -> None:
    labels = torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(0))
    found = assigned(labels, count, torch.Generator().manual_seed(1))
    assert torch.equal(found, assigned(labels, count, torch.Generator().manual_seed(1)))
    assert not torch.equal(found, assigned(labels, count, torch.Generator().manual_seed(2)))
    for some in (torch.ones(50, dtype=torch.bool), *(labels == label for label in range(4))):
        sizes = found[some].bincount(minlength=count)
        assert sizes.max() - sizes.min() <= 1


def test_every_fusion_learns_from_all_images_but_its_folds(world: World) -> None:
    inputs, _ = inputs_of(world)
    split = Folds(inputs, F)
    rows_SB = inputs.plan("fusion", ALONE, None, unlabelled=False).rows
    batches = split.batches(rows_SB)
    assert [number for number, _ in batches] == list(range(F)) * len(rows_SB)
    for step, rows_B in enumerate(rows_SB):
        of_step = batches[step * F : (step + 1) * F]
        for number, rows in of_step:
            own = split.share(rows_B)[number] == 1
            assert torch.equal(rows, rows_B[~own])
        assert sum(len(rows) for _, rows in of_step) == (F - 1) * len(rows_B)


def test_all_fusions_share_an_unlabelled_image(world: World) -> None:
    more = Unlabelled(world.data.val.pixels, "others")
    inputs, _ = inputs_of(world._replace(data=world.data._replace(unlabelled=more)))
    share_FB = Folds(inputs, F).share(torch.arange(398, 402))  # the last labelled one, the first
    assert torch.equal(share_FB.sum(0), torch.ones(4))
    assert share_FB[:, :2].max() == 1
    torch.testing.assert_close(share_FB[:, 2:], torch.full((F, 2), 1 / F))


def test_a_fusion_does_not_depend_on_the_labels_of_its_fold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other labels on the images of a fold, the fusion of that fold ends in the same bits, and
    the others do not."""
    fixed = torch.arange(200) % F
    monkeypatch.setattr(folds, "assigned", lambda *_: fixed)

    def trained(labels_N: Tensor) -> list[dict[str, Tensor]]:
        train = world.data.train._replace(labels=labels_N)
        other = world._replace(data=world.data._replace(train=train))
        inputs, state = inputs_of(other, "method.teacher_eval_every=9")
        step = AStep(inputs, state, ALONE, fresh=True)
        step.epoch(PlannedEpoch("A", ALONE))
        step.epoch(PlannedEpoch("A", StepPosition(1, 2, 0, 1, 2)))
        return [tiny.clone(one) for one in state.method.members]

    labels = world.data.train.labels
    before = trained(labels)
    for number in range(F):
        changed = torch.where(fixed == number, (labels + 1) % 10, labels)
        after = trained(changed)
        same = [not tiny.differences(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [k == number for k in range(F)]


@pytest.mark.parametrize("views", [2, 0])
def test_the_student_is_taught_by_the_fusion_that_has_not_seen_the_image(
    views: int, world: World
) -> None:
    inputs, state = inputs_of(world, f"data.views={views}")
    state.stage_student, state.gate_open = tiny.clone(state.student), True
    rows = torch.arange(0, inputs.views.rows, 7)
    images = inputs.views.batch(rows)
    found = Source(inputs, state, StepPosition(0, 4)).teacher_outputs(rows, images, images)
    members = state.method.eval().members
    pooled = list(found.pooled)
    with torch.no_grad():
        each = [one.synergy(None, list(found.teachers), pooled) for one in members]
    fold = Folds(inputs, F).share(rows).argmax(0)
    assert set(fold.tolist()) == set(range(F))
    for i, number in enumerate(fold.tolist()):
        expected = each[number]
        torch.testing.assert_close(found.synergy[i], expected.logits[i], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(found.certainty[i], expected.certainty[i], rtol=1e-4, atol=1e-5)


def test_validation_images_get_the_mean_and_are_measured_as_such(world: World) -> None:
    inputs, state = inputs_of(world)
    method = state.method.eval()
    teachers = [t.bank.val for t in world.teachers]
    student = teachers[0]
    alone = [synergy_rows(one, student, teachers).logits.float() for one in method.members]
    mean = synergy_rows(method, student, teachers).logits.float()
    torch.testing.assert_close(mean, sum(alone) / F, rtol=2e-3, atol=2e-3)
    labels, stream = world.data.val.labels, (0, 0)
    for measure in (
        lambda one: objective(inputs, one, student, teachers),
        lambda one: information(one, student, teachers, labels, stream),
    ):
        each = [measure(one) for one in method.members]
        for name, value in measure(method).items():
            assert value == pytest.approx(sum(one[name] for one in each) / F, rel=1e-6)


def test_one_fold_is_no_fold(world: World) -> None:
    plain = tiny.new_state(tiny.rung("L1"), world).method
    assert plain.members == [plain]
    inputs, state = inputs_of(world)
    assert folds.of_run(inputs, plain) is None
    assert folds.of_run(inputs, tiny.new_state(tiny.rung("KD"), world).method) is None
    names = {name.split(".")[0] for name, _ in state.method.named_parameters()}
    assert names == {"folds"}
    first = tiny.new_state(tiny.rung("L1", "method.query=none"), world).method
    assert tiny.differences(tiny.clone(first), tiny.clone(state.method.members[0])) == []
