"""Every switch that no rung turns on: its formula, that it is off by default, that it learns and
survives.

Shapes: B examples, C classes, D pooled width, K teachers.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.identity import run_key
from tests.trainers import tiny
from tests.trainers.methods.asib.test_method import (
    AVERAGE,
    FUSED,
    LABELS,
    MIX,
    STUDENT,
    B,
    C,
    K,
    asib,
    kl,
    mean,
    normal,
    probabilities,
)
from tests.trainers.tiny import Run, World
from trainers import losses, targets
from trainers.distillation.state import StepInputs
from trainers.distillation.teacher_outputs import Source
from trainers.methods.asib.guidance import guidance, kept_samples
from trainers.methods.asib.method import Asib
from trainers.methods.asib.switches import Switches
from trainers.methods.base import StepPosition
from trainers.mixing import UNMIXED, Mix
from trainers.models import outputs

MIDDLE = StepPosition(40, 80)
PLAIN = {"kd_uncertainty_weight": 0.0, "min_cw": 1.0, "max_cw": 1.0, "kd_max_ratio": 1e9}
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def plain(**options: Any):
    """ASIB without the weights and the cap that the ladder has on."""
    return asib(**(PLAIN | options))


def kd_term(
    m: Any, teacher_outputs: Any, mix: Mix = UNMIXED, position: StepPosition = MIDDLE
) -> float:
    """The distillation term without kd_eff."""
    terms = m.student_terms(STUDENT, teacher_outputs, LABELS, mix, position)
    return float(terms.losses["kd"]) / m.kd_weight(position)


# Targets ------------------------------------------------------------------------------------


def test_one_teacher_can_be_the_target() -> None:
    for index in range(K):
        m = plain(kd_target="teacher", teacher_index=index)
        rows = [
            kl(probabilities(AVERAGE.teachers[index, b], 4.0), STUDENT.logits[b], 4.0)
            for b in range(B)
        ]
        assert kd_term(m, AVERAGE) == pytest.approx(mean(rows), rel=1e-9)


@pytest.mark.parametrize("tau_gate", [0.5, 1.0, 3.0])
def test_teachers_weigh_by_their_confidence(tau_gate: float) -> None:
    m = plain(kd_target="weighted_conf", tau_gate=tau_gate)
    rows = []
    for b in range(B):
        sure = [max(probabilities(AVERAGE.teachers[k, b], tau_gate)) for k in range(K)]
        logits = sum(sure[k] / sum(sure) * AVERAGE.teachers[k, b] for k in range(K))
        rows.append(kl(probabilities(logits, 4.0), STUDENT.logits[b], 4.0))
    assert kd_term(m, AVERAGE) == pytest.approx(mean(rows), rel=1e-9)


@pytest.mark.parametrize("shares", [targets.confidence_shares, targets.entropy_shares])
@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_shares_sum_to_one_and_identical_teachers_equal_one(shares: Any, teachers: int) -> None:
    different = normal(teachers, B, C, seed=3)
    torch.testing.assert_close(shares(different).sum(0), torch.ones(B).double(), **CLOSE)
    same = shares(different[:1].expand(teachers, B, C))
    torch.testing.assert_close(same, torch.full_like(same, 1 / teachers), **CLOSE)
    flat = shares(torch.zeros(teachers, B, C))  # no teacher knows anything
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / teachers))


def test_entropy_shares_are_what_is_known_of_a_sample() -> None:
    found = targets.entropy_shares(AVERAGE.teachers)
    for b in range(B):
        known = []
        for k in range(K):
            p = probabilities(AVERAGE.teachers[k, b])
            known.append(math.log(C) + sum(x * math.log(x) for x in p))
        assert found[:, b].tolist() == pytest.approx([x / sum(known) for x in known], rel=1e-9)


@pytest.mark.parametrize(
    ("epoch", "left"), [(0, 1.0), (20, 1.0), (30, 0.75), (40, 0.5), (60, 0.0), (79, 0.0)]
)
def test_the_second_teachers_weight_falls(epoch: int, left: float) -> None:
    m = asib(
        kd_target="avg",
        teacher_weights=[0.6, 0.4],
        kd_cooldown_epochs=0.0,
        teacher2_weight_decay_start=0.25,
        teacher2_weight_decay_len=0.5,
    )
    share = 0.6 / (0.6 + 0.4 * left)
    expected = share * AVERAGE.teachers[0] + (1 - share) * AVERAGE.teachers[1]
    found = guidance(m.config, AVERAGE, LABELS, UNMIXED, StepPosition(epoch, 80))
    torch.testing.assert_close(found.target, torch.softmax(expected / 4.0, -1), **CLOSE)


def test_routed_targets_begin_near_the_average() -> None:
    m = asib(kd_target="synergy", kd_ens_alpha=0.6, kd_warmup_epochs=10.0)
    average = torch.softmax(AVERAGE.teachers.mean(0) / 4.0, -1)
    pure = guidance(asib(kd_target="synergy").config, FUSED, LABELS, UNMIXED, MIDDLE).target
    for epoch, share in ((0, 0.6 * 0.9), (4, 0.6 * 0.5), (9, 0.0), (40, 0.0)):
        found = guidance(m.config, FUSED, LABELS, UNMIXED, StepPosition(epoch, 80)).target
        torch.testing.assert_close(found, (1 - share) * pure + share * average, **CLOSE)


def test_the_average_of_the_student_has_its_own_weight() -> None:
    m, ema = asib(kd_target="avg", ema_weight=0.5), normal(B, C, seed=50)
    found = guidance(m.config, AVERAGE._replace(ema=ema), LABELS, UNMIXED, MIDDLE).target
    expected = (AVERAGE.teachers.mean(0) + 0.5 * ema) / 1.5
    torch.testing.assert_close(found, torch.softmax(expected / 4.0, -1), **CLOSE)


@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
@pytest.mark.parametrize("view", ["two_view", "clean", "same"])
def test_decoupled_distillation_takes_the_labels_that_the_image_shows(mix: Mix, view: str) -> None:
    m = plain(kd_target="avg", use_dkd_with_synergy=True, dkd_beta=2.0, target_view=view)
    clean = torch.softmax(AVERAGE.teachers.mean(0) / 4.0, -1)
    q = mix.blend(clean) if view == "two_view" else clean
    logits = 4.0 * q.log()

    def decoupled(labels: Tensor) -> Tensor:
        return losses.dkd(STUDENT.logits, logits, labels, alpha=1.0, beta=2.0, temperature=4.0)

    expected = decoupled(LABELS)
    if mix.partner is not None and view != "clean":
        expected = mix.lam * expected + (1 - mix.lam) * decoupled(LABELS[mix.partner])
    assert kd_term(m, AVERAGE, mix) == pytest.approx(float(expected.mean()), rel=1e-6)


def test_decoupled_distillation_of_equal_logits_is_zero() -> None:
    m = plain(kd_target="avg", use_dkd_with_synergy=True)
    same = AVERAGE._replace(teachers=STUDENT.logits[None] + torch.tensor([[[3.0]], [[-1.0]]]))
    assert kd_term(m, same) == pytest.approx(0, abs=1e-9)


# Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["pred", "both_wrong"])
def test_disagreement_weighs(mode: str) -> None:
    options = {"disagree_mode": mode, "disagree_lambda_high": 2.0, "disagree_lambda_low": 0.5}
    m = plain(kd_target="avg", **options)
    omega = guidance(m.config, AVERAGE, LABELS, UNMIXED, MIDDLE).omega.tolist()
    for b in range(B):
        guessed = [int(AVERAGE.teachers[k, b].argmax()) for k in range(K)]
        apart = len(set(guessed)) > 1 if mode == "pred" else int(LABELS[b]) not in guessed
        assert omega[b] == (2.0 if apart else 0.5)
    assert len(set(omega)) == 2


@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
def test_the_label_guard_weighs_by_the_targets_probability_of_the_label(mix: Mix) -> None:
    m = plain(kd_target="avg", kd_label_guard=True, kd_correct_min=0.2, target_view="same")
    omega = guidance(m.config, AVERAGE, LABELS, mix, MIDDLE).omega.tolist()
    average = AVERAGE.teachers.mean(0)
    partner = range(B) if mix.partner is None else mix.partner.tolist()
    for b, j in enumerate(partner):
        p = probabilities(average[b])
        shown = mix.lam * p[int(LABELS[b])] + (1 - mix.lam) * p[int(LABELS[j])]
        assert omega[b] == pytest.approx(max(0.2, shown), rel=1e-9)
    assert min(omega) == 0.2


# Sample gate --------------------------------------------------------------------------------


def gated(**options: Any):
    return plain(kd_target="avg", kd_sample_gate=True, **options)


@pytest.mark.parametrize(
    ("thr", "low", "high", "count"),
    [
        (1.0, 0.0, 1.0, 6),
        (0.0, 0.0, 1.0, 0),
        (0.0, 0.5, 1.0, 3),
        (1.0, 0.1, 0.5, 3),
        (1.0, 0.1, 0.2, 2),
        (0.0, 0.1, 0.5, 1),
    ],
)
@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
def test_the_hardest_samples_are_kept(
    thr: float, low: float, high: float, count: int, mix: Mix
) -> None:
    m = gated(kd_sample_thr=thr, kd_sample_min_ratio=low, kd_sample_max_ratio=high)
    kept, _ = kept_samples(m.config, STUDENT.logits, LABELS, mix)
    assert int(kept.sum()) == count
    partner = range(B) if mix.partner is None else mix.partner.tolist()
    own = []
    for b, j in enumerate(partner):
        p = probabilities(STUDENT.logits[b])
        own.append(mix.lam * p[int(LABELS[b])] + (1 - mix.lam) * p[int(LABELS[j])])
    assert {b for b in range(B) if kept[b]} == set(sorted(range(B), key=own.__getitem__)[:count])


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
def test_the_gate_equals_the_ungated_computation_of_the_kept(reweight: bool, mix: Mix) -> None:
    options = {"kd_sample_thr": 0.3, "kd_sample_max_ratio": 0.9, "kd_sample_reweight": reweight}
    kept, _ = kept_samples(gated(**options).config, STUDENT.logits, LABELS, mix)
    assert 0 < kept.sum() < B
    ungated = plain(kd_target="avg")
    guided = guidance(ungated.config, AVERAGE, LABELS, UNMIXED, MIDDLE)
    target = mix.blend(guided.target)
    rows = [kl(target[b].tolist(), STUDENT.logits[b], 4.0) for b in range(B) if kept[b]]
    expected = sum(rows) / (len(rows) if reweight else B)
    assert kd_term(gated(**options), AVERAGE, mix) == pytest.approx(expected, rel=1e-9)
    everything = {"kd_sample_thr": 1.0, "kd_sample_max_ratio": 1.0, "kd_sample_reweight": reweight}
    assert kd_term(gated(**everything), AVERAGE, mix) == pytest.approx(
        kd_term(ungated, AVERAGE, mix), rel=1e-9
    )


GATED = ["method.kd_sample_gate=true", "method.kd_sample_max_ratio=0.2"]
NETWORKS_IN_THE_LOOP = {
    "fresh crops": ("KD", ["data.views=0"]),
    "mixed images": ("L0", ["method.target_view=same", "mix.start=0"]),
    "two sources": ("L0", ["data.views=0", "mix.start=0"]),
    "live query": ("L0", ["method.query=live"]),
    "average of the student": ("KD", ["method.ema_weight=1"]),
    "placebo": ("L0", ["data.views=0", "method.placebo=image"]),
    "features": ("L0", ["data.views=0", "method.feat_kd_alpha=1"]),
}


@pytest.mark.parametrize("case", NETWORKS_IN_THE_LOOP)
def test_the_sample_gate_spares_networks_the_images_that_are_not_kept(
    case: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the results of a gate that spares none, to rounding."""
    cfg, overrides = NETWORKS_IN_THE_LOOP[case]
    config = tiny.rung(cfg, *GATED, "budget.student_epochs=2", *overrides)
    seen: list[int] = []
    unspared = Source.teacher_outputs

    def count(self: Source, *arguments: Any) -> Any:
        found = unspared(self, *arguments)
        seen.append(found.teachers.shape[1])
        return found

    monkeypatch.setattr(Source, "teacher_outputs", count)
    spared = tiny.run(config, world)
    assert set(seen) <= {10, 20}  # of 50: a fifth, or with the second source of mixed images
    assert (20 in seen) == (case == "two sources")
    monkeypatch.setattr(Asib, "needed_images", lambda *_: None)
    whole = tiny.run(config, world)
    for a, b in zip(spared.epochs, whole.epochs, strict=True):
        losses = [e.metrics.get("train/loss/kd", 0.0) for e in (a, b)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, tensor in tiny.clone(whole.state.student).items():
        torch.testing.assert_close(
            tiny.clone(spared.state.student)[name], tensor, rtol=1e-3, atol=1e-4
        )


# Features, temperature, subsets -------------------------------------------------------------


@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
def test_feature_distillation_is_huber_of_the_clipped_mean(mix: Mix) -> None:
    m = plain(kd_target="synergy", feat_kd_alpha=0.7)
    latent = 4 * normal(B, 8, seed=60)
    terms = m.student_terms(STUDENT, FUSED._replace(latent=latent), LABELS, mix, MIDDLE)
    query = m.query_adapter(STUDENT.pooled)
    aim = mix.blend(latent.clamp(-3, 3))
    rows = []
    for b in range(B):
        gaps = [abs(float(x)) for x in (query[b] - aim[b]).tolist()]
        rows.append(mean([g * g / 2 if g <= 1 else g - 0.5 for g in gaps]))
    assert float(terms.losses["feat"]) == pytest.approx(0.7 * mean(rows), rel=1e-9)
    assert latent.abs().max() > 3


def test_synergy_logits_are_divided_by_a_temperature_that_learns() -> None:
    m = asib(synergy_temp_learnable=True, synergy_temp_init=0.5, synergy_temp_reg=0.1)
    cold = asib()
    latent = normal(B, 8, seed=70)
    torch.testing.assert_close(m.head(latent), cold.head(latent) / math.exp(0.5), **CLOSE)
    names = [name for name, _ in m.trainable("A")]
    assert "head.log_temperature" in names
    teachers = [t._replace() for t in _teachers()]
    terms = m.teacher_terms(STUDENT, teachers, None, LABELS, StepPosition(4, 8, 0, 4, 8)).losses
    assert float(terms["temperature"]) == pytest.approx(0.1 * 0.25, rel=1e-6)
    sum(terms.values()).backward()
    assert m.head.log_temperature.grad.abs() > 0
    with torch.no_grad():
        m.head.log_temperature.fill_(-100.0)
    assert m.head(latent).isfinite().all()  # floored at 1e-4


def _teachers():
    from tests.trainers.methods.asib.test_method import TEACHERS

    return TEACHERS


def test_the_fusion_can_use_some_teachers_only() -> None:
    m, teachers = asib().eval(), [t.pooled for t in _teachers()]
    both = m.fuse(STUDENT.pooled, teachers)
    one = m.fuse(STUDENT.pooled, teachers, which=[1])
    assert (both.mu - one.mu).abs().max() > 1e-3
    other = [torch.zeros_like(teachers[0]), teachers[1]]
    torch.testing.assert_close(m.fuse(STUDENT.pooled, other, which=[1]).mu, one.mu, **CLOSE)
    torch.testing.assert_close(m.fuse(STUDENT.pooled, teachers, which=[0, 1]).mu, both.mu, **CLOSE)


# In a run -----------------------------------------------------------------------------------

RUNS = {
    "query": ("L2", ["method.query=live"]),
    "no query": ("L2", ["method.query=none"]),
    "no query on fresh crops": ("L3", ["method.query=none", "data.views=0"]),
    "dropped query": ("L2", ["method.query_dropout=0.5"]),
    "query of the average": ("L2", ["method.query=ema", "method.ema_decay=0.5"]),
    "folds": ("L2", ["method.folds=3"]),
    "folds on fresh crops": ("L1", ["method.folds=2", "data.views=0", "method.query=none"]),
    "residual": ("L2", ["method.residual=true"]),
    "ema": ("L1", ["method.ema_weight=1", "method.ema_decay=0.5", "method.ema_update_every=2"]),
    "ema on mixed images": ("side_asib_cccp", ["method.ema_weight=1", "method.ema_decay=0.5"]),
    "features": ("L1", ["method.feat_kd_alpha=1"]),
    "temperature": ("L1", ["method.synergy_temp_learnable=true"]),
    "sample gate": ("KD", ["method.kd_sample_gate=true", "method.kd_sample_reweight=true"]),
    "decoupled": ("KD", ["method.use_dkd_with_synergy=true"]),
    "guard": ("KD", ["method.kd_label_guard=true"]),
    "disagreement": ("KD", ["method.disagree_lambda_high=3"]),
    "confidence": ("KD", ["method.kd_target=weighted_conf"]),
    "one teacher": ("KD", ["method.kd_target=teacher", "method.teacher_index=1"]),
    "fading teacher": ("KD", ["method.teacher2_weight_decay_len=0.5"]),
    "average first": ("L1", ["method.kd_target=synergy", "method.kd_ens_alpha=1"]),
    "live images": ("KD", ["method.target_view=same", "mix.start=0"]),
    "fresh crops": ("L3", ["data.views=0"]),
    "teachers' subset": ("L1", ["method.synergy_eval_teacher_indices=[1]"]),
}


SHORT = ["method.kd_alpha=1", "budget.student_epochs=3", "budget.adapt_epochs=4"]


@pytest.fixture(scope="module")
def plain_run(world: World) -> Callable[..., Run]:
    """The run of a rung without the switch, trained once for all that compare with it."""
    return cache(lambda cfg, *overrides: tiny.run(tiny.rung(cfg, *overrides), world))


@pytest.mark.parametrize("case", RUNS)
def test_a_switch_is_an_experiment_of_its_own_and_resumes_bit_for_bit(
    case: str, world: World, plain_run: Callable[..., Run]
) -> None:
    cfg, overrides = RUNS[case]
    more = SHORT if cfg in ("KD", "L1") else [*SHORT, "method.num_stages=2"]
    config = tiny.rung(cfg, *more, *overrides)
    whole = tiny.run(config, world)
    assert run_key("distill", tiny.compose(cfg, *more, *overrides)) != run_key(
        "distill", tiny.compose(cfg, *more)
    )
    without = tiny.clone(plain_run(cfg, *more).state.student)
    moved = tiny.differences(tiny.clone(whole.state.student), without)
    # A subset can rank the A-Step's epochs alike; the average first asks in stage 2, whose one
    # epoch is of the cooldown.
    assert moved or case in ("teachers' subset", "query of the average")
    # Interrupted in the middle of the first B-Step epoch, saved, and resumed.
    steps = 4 * next(i for i, epoch in enumerate(whole.epochs) if epoch.step == "B")
    state = tiny.new_state(config, world)
    state.stop = tiny.stop_after(steps + 2)
    first = tiny.until_interrupted(lambda: tiny.epochs_of(config, world, state))
    saved = tiny.through_a_file(state.state_dict())
    again = tiny.new_state(config, world)
    again.load_state_dict(saved)
    rest = list(tiny.epochs_of(config, world, again))
    assert tiny.differences(whole.state.state_dict(), again.state_dict()) == []
    assert tiny.without_cost([*first, *rest]) == tiny.without_cost(whole.epochs)


def test_every_switch_is_off_and_out_of_the_key_by_default() -> None:
    from pipeline.identity import canonical

    kept = canonical(tiny.rung("L3").method)
    assert not {name for name in vars(Switches()) if name in kept}


def test_a_live_query_is_the_present_student(world: World) -> None:
    config = tiny.rung("L2", "method.query=live")
    state = tiny.new_state(config, world)
    state.stage_student, state.gate_open = tiny.clone(state.student), True
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    tables, rows = Source(inputs, state, StepPosition(0, 4)), torch.arange(20)
    images = inputs.views.batch(rows)
    before = tables.teacher_outputs(rows, images, images).synergy
    with torch.no_grad():
        for p in state.student.parameters():
            p.mul_(1.5)
    state.student.train()
    now = tables.teacher_outputs(rows, images, images)
    assert all(m.training for m in state.student.modules())  # as it was
    assert (now.synergy - before).abs().max() > 1e-3
    state.student.eval()
    with torch.no_grad():
        query = outputs(state.student, images).pooled
        pooled = [t.bank.train.pooled[rows].float() for t in world.teachers]
        latent = state.method.eval().fuse(query, pooled)
        torch.testing.assert_close(now.synergy, state.method.head(latent.mu))


def test_fresh_crops_differ_by_epoch_and_are_the_same_for_every_method(world: World) -> None:
    seen: dict[str, list[Tensor]] = {}
    for cfg in ("CE", "KD"):
        config = tiny.rung(cfg, "data.views=0", "mix.start=1", "mix.stop=1.5")
        state = tiny.new_state(config, world)
        inputs = StepInputs.prepare(config, world.data, world.teachers, state)
        rows, found = torch.arange(10), []
        for epoch in (0, 1, 0):
            inputs.views.redraw(config.seed, "student", epoch)
            found.append(inputs.views.batch(rows).clone())
        seen[cfg] = found
    assert torch.equal(seen["CE"][0], seen["CE"][2])
    assert not torch.equal(seen["CE"][0], seen["CE"][1])
    assert all(torch.equal(a, b) for a, b in zip(seen["CE"], seen["KD"], strict=True))


def test_the_average_of_the_student_is_the_closed_form(world: World) -> None:
    config = tiny.rung(
        "KD", "method.ema_weight=1", "method.ema_decay=0.9", "budget.student_epochs=1"
    )
    state = tiny.new_state(config, world)
    first = tiny.clone(state.student)["fc.weight"]
    trace: list[Tensor] = []
    terms = state.method.student_terms

    def record(*arguments: Any) -> Any:
        trace.append(state.student.fc.weight.detach().clone())
        return terms(*arguments)

    state.method.student_terms = record  # type: ignore[method-assign]
    list(tiny.epochs_of(config, world, state))
    trace.append(state.student.fc.weight.detach().clone())
    expected = first
    for weight in trace[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(state.ema.fc.weight, expected)
    assert not any(p.requires_grad for p in state.ema.parameters())
