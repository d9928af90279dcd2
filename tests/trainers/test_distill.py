"""Distillation runs: their plan, resuming after any interruption, selection, failures."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.tiny import TWO_STAGES, Run, World
from trainers.data import TrainingData, load
from trainers.distill import distill, plan
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState
from trainers.errors import Interrupted
from trainers.loop import Epoch, NonFinite
from trainers.methods import METHODS
from trainers.methods.alternating import alternating
from trainers.methods.base import Dims, Method, StepPosition

STEPS = 4  # optimiser steps of an epoch


# The plan -----------------------------------------------------------------------------------


def shape(config: DistillConfig) -> str:
    return "".join(epoch.step for epoch in plan(config))


@pytest.mark.parametrize(
    ("cfg", "overrides", "want"),
    [
        ("CE", [], "BBBB"),
        ("KD", [], "BBBB"),
        ("L0", [], "AAAAAAAABBBB"),
        ("L3", [], "AABAABAABAAB"),
        ("L2", TWO_STAGES, "AAABBAAABB"),
        ("L2", ["method.num_stages=3", "budget.student_epochs=5"], "AAABBAAABBAAB"),
    ],
)
def test_the_plan_alternates_and_keeps_the_budget(
    cfg: str, overrides: list[str], want: str
) -> None:
    config = tiny.rung(cfg, *overrides)
    assert shape(config) == want
    for step in "AB":
        planned = [epoch for epoch in plan(config) if epoch.step == step]
        assert [epoch.position.epoch for epoch in planned] == list(range(len(planned)))
        assert {epoch.position.total for epoch in planned} <= {len(planned)}
        for stage in range(config.method.stage_count()):
            part = [epoch for epoch in planned if epoch.position.stage == stage]
            assert [epoch.position.in_step for epoch in part] == list(range(len(part)))
            assert {epoch.position.step_total for epoch in part} <= {len(part)}
            if part:
                assert part[0].first
                assert part[-1].last
                assert sum(epoch.first for epoch in part) == sum(epoch.last for epoch in part) == 1


def test_rungs_have_the_same_student_epochs() -> None:
    plans = {cfg: shape(tiny.rung(cfg)) for cfg in tiny.RUNGS}
    assert {steps.count("B") for steps in plans.values()} == {4}
    assert {plans[cfg].count("A") for cfg in ("L0", "L1", "L2", "L3")} == {8}


def test_epochs_come_as_planned_with_indices_that_never_restart(
    two_stages: dict[str, Run],
) -> None:
    for cfg, run in two_stages.items():
        planned = plan(tiny.rung(cfg, *TWO_STAGES))
        assert [e.index for e in run.epochs] == list(range(len(planned)))
        assert [e.step for e in run.epochs] == [epoch.step for epoch in planned]
        assert [e.stage for e in run.epochs] == [epoch.position.stage + 1 for epoch in planned]
        assert run.state.progress.done
        for epoch in run.epochs:
            assert epoch.metrics["stage/index"] == epoch.stage
            assert epoch.metrics["stage/step"] == (epoch.step == "B")
            assert all(isinstance(value, float) for value in epoch.metrics.values())


def test_the_runs_compared_here_use_everything(two_stages: dict[str, Run]) -> None:
    """Otherwise the comparisons below would say little."""
    for cfg in ("L2", "L3"):
        epochs = two_stages[cfg].epochs
        gates = [e.metrics["synergy/gate"] for e in epochs if "synergy/gate" in e.metrics]
        assert gates == [1.0, 1.0]
        assert max(e.metrics.get("synergy/share", 0.0) for e in epochs) > 0
        assert max(e.metrics.get("train/loss/cccp", 0.0) for e in epochs) > 0
        assert max(e.metrics.get("train/loss/rate", 0.0) for e in epochs) > 0
    adapting = [e.metrics.get("train/loss/preserve", 0.0) for e in two_stages["L3"].epochs]
    assert max(adapting) > 0
    assert {"teacher0/top1_before", "teacher1/top1_before"} <= set(
        two_stages["L3"].epochs[5].metrics
    )
    assert {"teacher0/top1_after", "teacher1/top1_after"} <= set(two_stages["L3"].epochs[7].metrics)


def test_logged_terms_add_up_to_the_total(two_stages: dict[str, Run]) -> None:
    for run in two_stages.values():
        for epoch in run.epochs:
            parts = {
                name: value
                for name, value in epoch.metrics.items()
                if name.startswith("train/loss/") and name != "train/loss/total"
            }
            total = epoch.metrics["train/loss/total"]
            assert sum(parts.values()) == pytest.approx(total, rel=1e-5)


def test_a_finished_run_yields_nothing_more(two_stages: dict[str, Run], world: World) -> None:
    config = tiny.rung("CE", *TWO_STAGES)
    assert list(tiny.epochs_of(config, world, two_stages["CE"].state)) == []


# Going on -----------------------------------------------------------------------------------

GOING_ON = {
    "CE": ("CE", []),
    "L1": ("L1", ["budget.adapt_epochs=4", "mix.start=0.5"]),
    "L3": ("L3", TWO_STAGES),
}
IN_FLOAT16 = ("L3", [*TWO_STAGES, "numerics.precision=float16"])  # slow on a CPU


@pytest.fixture(
    scope="module",
    params=[*GOING_ON, pytest.param("L3 in float16", marks=pytest.mark.thorough)],
)
def cut_run(
    request: pytest.FixtureRequest, world: World
) -> tuple[DistillConfig, Run, list[dict[str, Any]]]:
    """A configuration, its whole run, and what a commit of each boundary would hold."""
    cfg, overrides = {**GOING_ON, "L3 in float16": IN_FLOAT16}[request.param]
    config = tiny.rung(cfg, *overrides)
    state = tiny.new_state(config, world)
    boundaries, epochs = [tiny.through_a_file(state.state_dict())], []
    for epoch in tiny.epochs_of(config, world, state):
        epochs.append(epoch)
        boundaries.append(tiny.through_a_file(state.state_dict()))
    return config, Run(state, epochs), boundaries


def resumed(
    config: DistillConfig, world: World, saved: dict[str, Any], steps: int | None = None
) -> Run:
    """A new process: a new state takes over what was saved, and stops after some steps."""
    torch.manual_seed(987)
    state = tiny.new_state(config, world)
    state.load_state_dict(tiny.through_a_file(saved))
    if steps is not None:
        state.stop = tiny.stop_after(steps)
    return Run(state, tiny.until_interrupted(lambda: tiny.epochs_of(config, world, state)))


def same_end(found: Run, want: Run, done: int) -> None:
    for part in ("student", "method"):
        one, other = (getattr(run.state, part).state_dict() for run in (found, want))
        assert tiny.differences(one, other) == []
    assert tiny.differences(found.state.state_dict(), want.state.state_dict()) == []
    assert tiny.without_cost(found.epochs) == tiny.without_cost(want.epochs[done:])


def test_resuming_at_every_epoch_boundary_gives_the_same_next_one(cut_run, world: World) -> None:
    """From each commit, in a new state, the next commit follows bit for bit: so does the end."""
    config, want, boundaries = cut_run
    for done, (saved, after) in enumerate(pairwise(boundaries)):
        torch.manual_seed(987)
        state = tiny.new_state(config, world)
        state.load_state_dict(tiny.through_a_file(saved))
        epoch = next(tiny.epochs_of(config, world, state))
        assert tiny.differences(state.state_dict(), after) == []
        assert tiny.without_cost([epoch]) == tiny.without_cost([want.epochs[done]])


def test_interruptions_inside_epochs_end_the_same(cut_run, world: World) -> None:
    """Interrupted and resumed every 7 steps, until it is done: at every place of an epoch."""
    config, want, boundaries = cut_run
    saved, epochs, places = boundaries[0], [], set()
    while not saved["progress"]["done"]:
        run = resumed(config, world, saved, steps=STEPS + 3)
        epochs += run.epochs
        saved = run.state.state_dict()
        places.add(saved["progress"]["step"])
    assert len(places) >= 3
    same_end(Run(run.state, epochs), want, 0)


def test_an_interruption_raises_and_leaves_the_position(world: World) -> None:
    config = tiny.rung("L3", *TWO_STAGES)
    state = tiny.new_state(config, world)
    state.stop = tiny.stop_after(STEPS + 2)
    epochs = tiny.epochs_of(config, world, state)
    assert next(epochs).index == 0
    with pytest.raises(Interrupted):
        next(epochs)
    assert (state.progress.slot, state.progress.step) == (1, 2)
    assert not state.progress.done


def test_a_loaded_state_can_be_saved_again_before_it_is_used(cut_run, world: World) -> None:
    config, _, boundaries = cut_run
    for saved in boundaries:
        state = tiny.new_state(config, world)
        state.load_state_dict(tiny.through_a_file(saved))
        assert tiny.differences(state.state_dict(), saved) == []


def test_stopping_at_once_and_resuming_ends_the_same(cut_run, world: World) -> None:
    """Asked to stop before the first step after a boundary: nothing is lost either."""
    config, want, boundaries = cut_run
    done = 2 * len(want.epochs) // 3
    stopped = resumed(config, world, boundaries[done], steps=0)
    assert stopped.epochs == []
    same_end(resumed(config, world, stopped.state.state_dict()), want, done)


def test_the_same_configuration_gives_the_same_bits_and_another_seed_others(
    two_stages: dict[str, Run], world: World
) -> None:
    again = tiny.run(tiny.rung("L3", *TWO_STAGES), world)
    same_end(again, two_stages["L3"], 0)
    other = tiny.run(tiny.rung("L3", *TWO_STAGES, "seed=1"), world)
    weights = other.state.student.state_dict()
    assert tiny.differences(weights, again.state.student.state_dict()) != []


# Failures and selection ---------------------------------------------------------------------


@pytest.mark.parametrize("cfg", ["CE", "KD"])
def test_an_absurd_learning_rate_is_reported(cfg: str, world: World) -> None:
    with pytest.raises(NonFinite):
        tiny.run(tiny.rung(cfg, "optim.lr=1e30"), world)


def test_an_absurd_learning_rate_of_the_fusion_is_reported(world: World) -> None:
    with pytest.raises(NonFinite):
        tiny.run(tiny.rung("L1", a_lr=1e30), world)


def test_the_best_epoch_is_selected_over_all_stages(
    two_stages: dict[str, Run], world: World
) -> None:
    for cfg, run in two_stages.items():
        found = [(e.metrics["val/top1"], -e.index) for e in run.epochs if e.step == "B"]
        accuracy, index = max(found)
        assert run.state.best["top1"] == accuracy
        assert run.state.best["epoch"] == -index
        if cfg == "CE":
            state = tiny.new_state(tiny.rung(cfg, *TWO_STAGES), world)
            for epoch in tiny.epochs_of(tiny.rung(cfg, *TWO_STAGES), world, state):
                if epoch.index == -index:
                    break
            assert tiny.differences(run.state.selected(), tiny.clone(state.student)) == []


@pytest.mark.parametrize(("cfg", "fraction"), [("CE", 0.1), ("CE", 0.0), ("KD", 0.0)])
def test_the_last_epoch_can_be_selected_without_validation_images(
    cfg: str, fraction: float, world: World
) -> None:
    config = tiny.rung(cfg, "select=last", f"data.val_fraction={fraction}")
    splits = load(config.data)
    data = TrainingData(splits.train, splits.val)
    teachers = []
    for number, teacher in enumerate(world.teachers):
        own = tiny.frozen_teacher(teacher.model, tiny.teacher_config(number), data)
        teachers.append(own)
    teachers = teachers if cfg == "KD" else []
    state = DistillState.new(config, data, teachers)
    epochs: list[Epoch] = list(distill(config, data, teachers, state))
    assert state.best["epoch"] == 3
    assert tiny.differences(state.selected(), tiny.clone(state.student)) == []
    assert [("val/top1" in e.metrics) for e in epochs] == [fraction > 0] * 4


@pytest.mark.parametrize(
    "precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.thorough)]
)
def test_mixed_precision_trains_all_rungs_and_can_be_given_up(precision: str, world: World) -> None:
    for cfg in ("KD", "L3"):
        short = ["budget.student_epochs=2", "method.num_stages=1", "budget.adapt_epochs=2"]
        config = tiny.rung(cfg, *short, f"numerics.precision={precision}")
        mixed = tiny.run(config, world)
        plain = tiny.run(tiny.rung(cfg, *short), world)
        state = tiny.new_state(config, world)
        state.progress.autocast_off = True
        list(tiny.epochs_of(config, world, state))
        weights = [s.student.state_dict() for s in (mixed.state, plain.state, state)]
        assert tiny.differences(weights[0], weights[1]) != []
        assert tiny.differences(weights[2], weights[1]) == []
        # The first steps in float16 are skipped, until their scale is found.
        first = 2 if precision == "float16" and cfg == "L3" else 0
        assert mixed.losses()[first:] == pytest.approx(plain.losses()[first:], rel=0.2)


def test_every_method_of_the_registry_has_its_name_and_its_terms() -> None:
    for name, method in METHODS.items():
        assert issubclass(method, Method)
        assert method.config_type().name == name
    bare = Method(None, Dims(1, (1,), 2))
    for call in (
        lambda: bare.needs_teachers(StepPosition(0, 1)),
        lambda: bare.student_terms(None, None, None, None, StepPosition(0, 1)),
    ):
        with pytest.raises(TypeError, match=r"^Method "):
            call()
    assert alternating(bare) is None
    assert bare.trainable("A") == []
