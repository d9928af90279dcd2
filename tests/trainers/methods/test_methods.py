"""What every method must do, on real networks: an own gradient, own parameters that learn, teachers
that are unchanged, a state that can be resumed."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.methods.parts import BASELINES, LOGIT, TIGHT, case
from tests.trainers.tiny import World
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, StepInputs
from trainers.distillation.teacher_outputs import source
from trainers.loop import snapshot
from trainers.methods import METHODS
from trainers.methods.alternating import alternating
from trainers.methods.base import Dims, StepPosition
from trainers.mixing import UNMIXED
from trainers.models import outputs

SHORT = ("budget.student_epochs=2", "mix.start=0.5")
CE_TERMS = {"ce"}


def config_of(name: str, *overrides: str, **method: Any) -> DistillConfig:
    if name == "asib":
        more = ("method.num_stages=1", "budget.adapt_epochs=2")
        return tiny.rung("L1", *overrides, *more, **method)
    options = {"negatives": 64} | method if name == "crd" else method
    return tiny.baseline(name, *overrides, **options)


# One batch ----------------------------------------------------------------------------------


def gradient(name: str, world: World) -> Tensor:
    """On the student, of all terms but the labels' cross-entropy."""
    config = config_of(name)
    state = tiny.new_state(config, world)
    state.stage_student, state.gate_open = snapshot(state.student), bool(alternating(state.method))
    inputs = StepInputs.prepare(config, world.data, tiny.teachers_of(config, world), state)
    position, rows = StepPosition(50, 100), torch.arange(0, 120, 3)
    clean = inputs.views.batch(rows)
    state.method.train(bool(state.method.trainable("B")))
    out = outputs(state.student.train(), clean, maps=state.method.needs_maps)
    spoken = source(inputs, state, position)
    teacher_outputs = spoken.teacher_outputs(rows, clean, clean) if spoken is not None else None
    torch.manual_seed(0)
    terms = state.method.student_terms(
        out, teacher_outputs, inputs.views.labels(rows), UNMIXED, position
    )
    own = [value for key, value in terms.losses.items() if key not in CE_TERMS]
    if not own:
        return torch.zeros(0)
    grads = torch.autograd.grad(sum(own), list(state.student.parameters()), allow_unused=True)
    pairs = zip(grads, state.student.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def test_no_two_methods_have_the_same_gradient(world: World) -> None:
    found = {name: gradient(name, world) for name in METHODS}
    assert not len(found.pop("ce"))
    for one, other in itertools.combinations(found, 2):
        cosine = torch.cosine_similarity(found[one], found[other], dim=0)
        assert cosine < 0.99, (one, other)
    assert all(grad.norm() > 0 for grad in found.values())


@pytest.mark.parametrize("name", BASELINES)
def test_identical_teachers_are_as_good_as_one(name: str) -> None:
    one, several = case(name, teacher="0"), case(name, teachers=3, same=True, teacher="avg")
    if several.method.trainable("B"):  # the same parameters and memory for each teacher
        (parts,) = several.method.children()
        (first,) = next(iter(one.method.children()))
        for part in parts:
            part.load_state_dict(first.state_dict())
    found = []
    for c in (one, several):
        torch.manual_seed(1)
        loss = c.term()
        found.append([loss, *c.gradient(loss)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighting", ["entropy", "confidence"])
@pytest.mark.parametrize("name", LOGIT)
def test_identical_teachers_are_as_good_as_one_in_weighted_means(name: str, weighting: str) -> None:
    one = case(name, teacher="0")
    several = case(name, teachers=3, same=True, teacher="avg", weighting=weighting)
    torch.testing.assert_close(several.term(), one.term(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_the_teacher_can_be_chosen(name: str) -> None:
    kind, size = METHODS[name], case(name).method.dims

    def used(teacher: str, dims: Dims = size) -> list[int]:
        return kind(kind.config_type(teacher=teacher), dims).teachers_used

    assert used("best") == [0]
    assert used("best", size._replace(best_teacher=1)) == [1]
    assert used("1") == [1]
    assert used("avg") == [0, 1]
    assert not torch.allclose(case(name, teacher="0").term(), case(name, teacher="1").term())
    assert kind.config_type(teacher="bets").errors(0, None, 2)
    assert not kind.config_type(teacher="avg").errors(0, None, 2)


@pytest.mark.parametrize("name", BASELINES)
def test_terms_are_weighted(name: str) -> None:
    plain, half = case(name), case(name, weight=0.25, ce_weight=0.5)
    full = plain.method.config.weight
    found = []
    for c in (half, plain):
        torch.manual_seed(1)  # crd's negatives
        found.append(c.term())
    torch.testing.assert_close(found[0] * full, found[1] * 0.25, **TIGHT)
    terms = half.method.student_terms(
        half.student, half.teacher_outputs, half.labels, UNMIXED, StepPosition(9, 10)
    ).losses
    ce = torch.nn.functional.cross_entropy(half.student.logits, half.labels)
    torch.testing.assert_close(terms["ce"], 0.5 * ce, **TIGHT)
    off = case(name, weight=0.0)
    assert not off.method.needs_teachers(StepPosition(0, 1))
    alone = off.method.student_terms(off.student, None, off.labels, UNMIXED, StepPosition(0, 1))
    assert set(alone.losses) == {"ce"}


def some_of(names: Iterable[str], *quick: str) -> list[Any]:
    """All names; all but the quick ones are marked thorough."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.thorough) for n in names]


# Whole runs ---------------------------------------------------------------------------------


def test_only_the_teachers_in_use_are_run(world: World) -> None:
    ran = []
    hooks = [
        t.model.get_classifier().register_forward_hook(lambda *_, k=k: ran.append(k))
        for k, t in enumerate(world.teachers)
    ]
    for teacher, want in (("0", {0}), ("1", {1}), ("avg", {0, 1})):
        config = config_of("at", *SHORT, teacher=teacher)
        state = tiny.new_state(config, world)  # asks every network for the shapes of its maps
        ran.clear()
        next(tiny.epochs_of(config, world, state))
        assert set(ran) == want
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", METHODS)
def test_own_parameters_learn_and_teachers_are_unchanged(name: str, world: World) -> None:
    teachers = [tiny.clone(t.model) for t in world.teachers]
    state = tiny.new_state(config_of(name, *SHORT), world)
    own = {n: p.detach().clone() for n, p in state.method.named_parameters()}
    before = tiny.clone(state.student)
    list(tiny.epochs_of(config_of(name, *SHORT), world, state))
    assert tiny.differences(before, tiny.clone(state.student)) != []
    learned = [n for n, p in state.method.named_parameters() if not torch.equal(p, own[n])]
    named = {n for step in "AB" for n, _ in state.method.trainable(step)}
    assert set(learned) == named
    assert bool(named) == (name in ("asib", "fitnet", "crd"))
    for teacher, was in zip(world.teachers, teachers, strict=True):
        assert tiny.differences(tiny.clone(teacher.model), was) == []
        assert all(p.grad is None for p in teacher.model.parameters())


@pytest.mark.parametrize("name", some_of(["asib", *BASELINES], "asib", "kd"))
def test_without_its_weight_a_method_is_another(name: str, world: World) -> None:
    off = {"kd_alpha": 0.0} if name == "asib" else {"weight": 0.0}
    with_it, without = (
        tiny.run(config_of(name, "budget.student_epochs=2", **o), world) for o in ({}, off)
    )
    weights = [run.state.student.state_dict() for run in (with_it, without)]
    assert tiny.differences(*weights) != []


@pytest.mark.parametrize("name", some_of(METHODS, "asib", "kd", "fitnet", "crd"))
def test_a_run_interrupted_anywhere_ends_the_same(name: str, world: World) -> None:
    config = config_of(name, *SHORT)
    whole = tiny.run(config, world)
    saved, epochs = tiny.new_state(config, world).state_dict(), []
    while not saved["progress"]["done"]:
        torch.manual_seed(987)
        state: DistillState = tiny.new_state(config, world)
        state.load_state_dict(tiny.through_a_file(saved))
        state.stop = tiny.stop_after(3)
        epochs += tiny.until_interrupted(lambda s=state: tiny.epochs_of(config, world, s))
        saved = state.state_dict()
    assert tiny.differences(state.state_dict(), whole.state.state_dict()) == []
    assert tiny.without_cost(epochs) == tiny.without_cost(whole.epochs)


@pytest.mark.parametrize("name", some_of(METHODS, "asib", "at", "crd"))
def test_mixed_precision_trains(name: str, world: World) -> None:
    found = [
        tiny.run(config_of(name, *SHORT, f"numerics.precision={precision}"), world).losses()
        for precision in ("float32", "bfloat16")
    ]
    assert found[0] == pytest.approx(found[1], rel=0.2)
    assert found[0] != found[1]


@pytest.mark.parametrize("name", some_of(METHODS, "at"))
def test_float16_finds_a_scale_for_the_loss(name: str, world: World) -> None:
    """However large a method's loss is. Steps before that are skipped, so losses differ."""
    run = tiny.run(config_of(name, *SHORT, "numerics.precision=float16"), world)
    skipped = [epoch.metrics["train/skipped"] for epoch in run.epochs]
    assert skipped[-1] < 1
    assert run.state.optimiser.state_dict()["state"][0]["step"] == 4 * (2 - sum(skipped[-2:]))


def test_teachers_on_the_mixed_image_cost_a_run_and_change_it(world: World) -> None:
    views = ("two_view", "clean", "same")
    runs = [tiny.run(config_of("kd", *SHORT, target_view=view), world) for view in views]
    for one, other in itertools.combinations(runs, 2):
        assert one.losses()[1] != other.losses()[1]
