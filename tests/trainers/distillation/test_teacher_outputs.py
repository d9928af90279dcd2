"""Teacher outputs: live on the student's own images, and with its information gone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.distillation import placebos
from trainers.distillation.state import StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.asib.guidance import guidance
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix, Shown, mix_images, shown
from trainers.models import outputs
from trainers.stacking import fit

MIXED = ["mix.start=0", "mix.mixup_alpha=0.4", "mix.cutmix_alpha=0"]
FIRST = StepPosition(0, 4, 0, 0, 1)


def recorded(world: World, monkeypatch: pytest.MonkeyPatch, cfg: str, *overrides: str) -> Any:
    """(state, inputs, [(student, teaching, labels, mix)]) of a tiny run."""
    config = tiny.rung(cfg, *overrides)
    state, calls = tiny.new_state(config, world), []
    terms = state.method.student_terms

    def record(student, teacher_outputs, labels, mix, position):
        calls.append((student, teacher_outputs, labels, mix))
        return terms(student, teacher_outputs, labels, mix, position)

    monkeypatch.setattr(state.method, "student_terms", record)
    list(tiny.epochs_of(config, world, state))
    return state, StepInputs.prepare(config, world.data, world.teachers, state), calls


def test_same_view_shows_the_frozen_side_the_students_own_images(world: World) -> None:
    config = tiny.rung("side_asib_cccp")
    state = tiny.new_state(config, world)
    state.stage_student = tiny.clone(state.student)
    state.gate_open = True
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    rows = torch.arange(0, 60, 3)
    mix = Mix(0.3, torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)))
    clean = inputs.views.batch(rows)
    images = mix_images(clean, mix)
    found = Source(inputs, state, FIRST).teacher_outputs(rows, clean, images)
    with torch.no_grad():
        single = [outputs(t.model, images) for t in world.teachers]
        query = outputs(state.student.eval(), images).pooled
        latent = state.method.eval().fuse(query, [s.pooled for s in single])
        torch.testing.assert_close(found.teachers, torch.stack([s.logits for s in single]))
        torch.testing.assert_close(found.synergy, state.method.head(latent.mu))
    assert found.certainty is not None
    assert all(not m.training for t in world.teachers for m in t.model.modules())


def test_targets_of_the_same_view_are_not_mixed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their images are mixed already; only the labels that route them are."""
    state, _, calls = recorded(world, monkeypatch, "side_asib_cccp", *MIXED)
    student, teacher_outputs, labels, mix = next(
        call for call in calls if call[1] and call[3].partner is not None
    )
    assert mix.partner is not None
    c = state.method.config
    target, omega, *_ = guidance(c, teacher_outputs, labels, mix, StepPosition(1, 4))
    kl = torch.nn.functional.kl_div(
        torch.log_softmax(student.logits / c.tau, -1), target, reduction="none"
    ).sum(1)
    expected = (omega * kl * c.tau**2).mean()
    terms = state.method.student_terms(student, teacher_outputs, labels, mix, StepPosition(1, 4))
    got = terms.losses["kd"] / (state.method.kd_weight(StepPosition(1, 4)) * terms.seen["kd/scale"])
    torch.testing.assert_close(got, expected)


def test_routing_of_mixed_images_weighs_both_labels() -> None:
    from trainers.targets import prefer_synergy

    synergy = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    average = torch.tensor([[0.0, 3.0, 0], [0, 2.9, 0], [0, 2.0, 2.0]])
    labels, partner = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2])
    for lam in (0.0, 0.2, 0.45, 0.9, 1.0):
        expected = []
        for i in range(3):

            def distance(z: Tensor, i: int = i, lam: float = lam) -> Tensor:
                log_p = torch.log_softmax(z[i], -1)
                return -(lam * log_p[labels[i]] + (1 - lam) * log_p[labels[partner[i]]])

            expected.append(bool(distance(synergy) < distance(average)))
        found = prefer_synergy(synergy, average, shown(labels, Mix(lam, partner)))
        assert found.tolist() == expected
    assert torch.equal(
        prefer_synergy(synergy, average, shown(labels, Mix(1.0, partner))),
        prefer_synergy(synergy, average, Shown(labels)),
    )


def teaching_of(cfg: str, world: World, rows: Tensor, *overrides: str) -> TeacherOutputs:
    config = tiny.rung(cfg, *overrides)
    state = tiny.new_state(config, world)
    state.stage_student, state.gate_open = tiny.clone(state.student), True
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    images = inputs.views.batch(rows)
    return Source(inputs, state, FIRST).teacher_outputs(rows, images, images)


SOURCES = {"tables": [], "live query": ["method.query=live"], "fresh crops": ["data.views=0"]}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rung", ["L2", "L3"])
def test_a_null_is_taught_the_synergy_of_other_images(rung: str, source: str, world: World) -> None:
    """With the label's routing, or with the routing of the other image, whatever the source."""
    rows = torch.arange(len(world.data.train.labels) * (1 if source == "fresh crops" else 2))
    true = teaching_of(rung, world, rows, *SOURCES[source])
    by_label = teaching_of(f"{rung}_null_by_label", world, rows, *SOURCES[source])
    null = teaching_of(f"{rung}_null", world, rows, *SOURCES[source])
    assert null.donor is not None
    assert null.synergy is None  # nothing of the fusion is this image's own
    found = (by_label.synergy, by_label.certainty)
    for a, b in zip(found, (null.donor.synergy, null.donor.certainty), strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert true.synergy is not None
    assert null.image is not None
    assert null.donor.image is not None
    for one in (by_label.teachers, null.teachers):
        assert torch.equal(one, true.teachers)
    assert (null.donor.image != null.image).all()
    of_donor = null.donor.image * (len(rows) // len(world.data.train.labels)) + rows % (
        len(rows) // len(world.data.train.labels)
    )
    torch.testing.assert_close(null.donor.synergy, true.synergy[of_donor])
    torch.testing.assert_close(null.donor.teachers, true.teachers[:, of_donor])


@pytest.mark.parametrize("source", SOURCES)
def test_the_placebo_of_a_class_is_taught_by_another_image_of_it(source: str, world: World) -> None:
    rows, labels = torch.arange(40), world.data.train.labels
    donor = teaching_of("L2_null_class", world, rows, *SOURCES[source]).donor
    assert donor is not None
    own = rows // (1 if source == "fresh crops" else 2)
    assert (donor.image != own).all()
    assert torch.equal(labels[donor.image], labels[own])


@pytest.mark.parametrize("source", SOURCES)
def test_the_placebo_of_tokens_has_the_own_query_alone(source: str, world: World) -> None:
    """Its fusion gives what that of L2 gives for its own query and another image's tokens."""
    rows = torch.arange(30)
    true = teaching_of("L2", world, rows, *SOURCES[source])
    null = teaching_of("L2_null_tokens", world, rows, *SOURCES[source])
    assert torch.equal(true.teachers, null.teachers)
    assert true.synergy is not None
    assert null.synergy is not None
    assert (true.synergy - null.synergy).abs().amax(1).min() > 1e-3
    config = tiny.rung("L2_null_tokens", *SOURCES[source])
    state = tiny.new_state(config, world)
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    placebo = placebos.of_stage(inputs, state.method, 0)
    assert placebo is not None
    own, other = (inputs.views.batch(r) for r in (rows, placebo.other(rows)))
    with torch.no_grad():
        query = outputs(state.student.eval(), own).pooled
        tokens = [outputs(t.model, other).pooled for t in world.teachers]
        expected = state.method.head(state.method.eval().fuse(query, tokens).mu)
    torch.testing.assert_close(null.synergy, expected, rtol=1e-2, atol=1e-2)  # half precision


@pytest.mark.parametrize("views", [0, 2])
def test_kd_null_keeps_the_teachers_logit_of_the_label_alone(views: int, world: World) -> None:
    rows = torch.arange(max(1, views) * len(world.data.train.labels))
    labels = world.data.train.labels.repeat_interleave(max(1, views))
    true, null = (
        teaching_of(cfg, world, rows, f"data.views={views}").teachers for cfg in ("KD", "KD_null")
    )
    for a, b in zip(true, null, strict=True):
        assert torch.equal(a.gather(1, labels[:, None]), b.gather(1, labels[:, None]))
        assert torch.equal(a.sort(1).values, b.sort(1).values)
    assert (true != null).float().mean() > 0.5


@pytest.mark.parametrize("cfg", ["L4", "side_cccp_ppf"])
def test_frozen_blocks_and_their_statistics_are_unchanged(cfg: str, world: World) -> None:
    """Stages 3 and 4 of partial freezing: the student's lower blocks do not move by a bit."""
    config = tiny.rung(cfg)
    state = tiny.new_state(config, world)
    before = tiny.clone(state.student)
    for epoch in tiny.epochs_of(config, world, state):
        now = tiny.clone(state.student)
        moved = {path.strip("/").split(".")[0] for path in tiny.differences(before, now)}
        if epoch.step == "A":
            assert moved == set()
            continue
        every = {"conv1", "bn1", "layer1", "layer2", "layer3", "fc"}
        assert moved == (every if epoch.stage <= 2 else {"layer3", "fc"})
        asked = epoch.metrics["stage/student_trainable_requested"]
        assert epoch.metrics["stage/student_trainable"] == asked
        assert (asked == 1) == (epoch.stage <= 2)
        before = now


def test_without_freeze_bn_the_statistics_change(world: World) -> None:
    config = tiny.rung("L4", freeze_bn=False)
    state = tiny.new_state(config, world)
    *_, last = _stages(config, world, state)
    moved = tiny.differences(*last)
    assert any("bn1.running_mean" in path for path in moved)
    assert not any("conv1" in path and "layer3" not in path for path in moved)


def _stages(config: Any, world: World, state: Any) -> Any:
    before = tiny.clone(state.student)
    for epoch in tiny.epochs_of(config, world, state):
        now = tiny.clone(state.student)
        if epoch.step == "B":
            yield before, now
        before = now


def test_teachers_report_their_trainable_share(world: World) -> None:
    config = tiny.rung("L4")
    state = tiny.new_state(config, world)
    shares = [
        (e.stage, e.metrics["teacher0/trainable"], e.metrics["teacher0/trainable_requested"])
        for e in tiny.epochs_of(config, world, state)
        if e.step == "A"
    ]
    assert all(real == asked for _, real, asked in shares)
    of_stage = dict((stage, real) for stage, real, _ in shares)
    assert of_stage[1] == of_stage[2] > of_stage[3] == of_stage[4] > 0


def test_heads_that_learn_alone_are_read_from_tables_and_resume_bit_for_bit(world: World) -> None:
    """The later stages of partial freezing tune the teachers' classifiers only: their bodies are
    not run again, and a run that resumes in such an A-Step or the B-Step after it has the same
    tables."""
    config = tiny.rung("L4", "method.num_stages=2", "budget.student_epochs=2", teacher_levels=[0])
    state, boundaries = tiny.new_state(config, world), []
    for epoch in tiny.epochs_of(config, world, state):
        boundaries.append((epoch.step, tiny.through_a_file(state.state_dict())))
    assert "".join(step for step, _ in boundaries) == "AAAABAAAAB"
    for done in (7, 9):  # inside the second A-Step, and at its end
        again = tiny.new_state(config, world)
        again.load_state_dict(boundaries[done - 1][1])
        list(tiny.epochs_of(config, world, again))
        assert tiny.differences(state.state_dict(), again.state_dict()) == []


def test_bodies_of_teachers_whose_heads_learn_are_not_run(world: World) -> None:
    config = tiny.rung("L4", teacher_levels=[0])
    state = tiny.new_state(config, world)
    runs = {0: 0}

    def count(module: Any, inputs: Any) -> None:
        runs[0] += 1

    for teacher in state.teachers:
        teacher.conv1.register_forward_pre_hook(count)
    first = runs[0]
    list(tiny.epochs_of(config, world, state))
    views = -(-2 * len(world.data.train.labels) // 128)
    # Once for the tables of each teacher, and on the validation images where J and the accuracy
    # before each A-Step are read.
    assert runs[0] - first <= 2 * (views + 4 * 3)
    assert tiny.differences(tiny.clone(world.teachers[0].model), tiny.clone(state.teachers[0])) == [
        "/fc.weight",
        "/fc.bias",
    ]


@pytest.mark.parametrize("features", ["pooled", "logits"])
@pytest.mark.parametrize("view", ["two_view", "same"])
def test_the_stack_is_a_regression_on_what_all_teachers_say(
    world: World, features: str, view: str
) -> None:
    config = tiny.rung("stack", f"method.stack_features={features}", f"method.target_view={view}")
    state = tiny.new_state(config, world)
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    rows = torch.arange(0, 60, 3)
    clean = inputs.views.batch(rows)
    found = Source(inputs, state, FIRST).teacher_outputs(rows, clean, clean)
    val = world.data.val.labels
    every = [t.bank.train for t in world.teachers], [t.bank.val for t in world.teachers]
    train, held = (torch.cat([getattr(one, features).float() for one in part], 1) for part in every)
    fitted = fit(train, inputs.views.labels(torch.arange(len(train))), held, val, 10)
    said = [outputs(t.model, clean) for t in world.teachers]
    own = torch.cat([getattr(one, features) for one in said], 1).detach()
    torch.testing.assert_close(found.stack, fitted.logits(own), atol=5e-3, rtol=5e-3)
    guided = guidance(state.method.config, found, inputs.views.labels(rows), UNMIXED, FIRST)
    torch.testing.assert_close(guided.target, torch.softmax(found.stack / 4, -1))
