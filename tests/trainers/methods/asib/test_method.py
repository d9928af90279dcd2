"""ASIB's terms by hand, its gate, and what a run may and may not move.

Shapes: B examples, C classes, D pooled width, K teachers.
"""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import Run, World
from trainers import losses
from trainers.distillation import a_step
from trainers.distillation.stage_cache import Synergy, synergy_rows
from trainers.distillation.state import StepInputs
from trainers.loop import Terms, snapshot, top1
from trainers.methods.asib.config import AsibConfig, default_token_dim
from trainers.methods.asib.guidance import guidance
from trainers.methods.asib.method import Asib
from trainers.methods.base import Dims, StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix
from trainers.models import Outputs, outputs
from trainers.rng import seeded

B, C, D, K = 6, 4, 5, 2
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(shape, generator=draw, dtype=torch.float64)


def asib(**options: Any) -> Asib:
    """In float64, without dropout, so that it can be compared with formulas."""
    given = {"token_dim": 8, "heads": 2, "dropout": 0.0, "synergy_only_epochs": 2.0} | options
    with seeded(0, "method"):
        return Asib(AsibConfig(**given), Dims(D, (7,) * K, C)).double()


STUDENT = Outputs(normal(B, C, seed=1), normal(B, D, seed=2))
TEACHERS = [Outputs(normal(B, C, seed=10 + k), normal(B, 7, seed=20 + k)) for k in range(K)]
START = [normal(B, C, seed=30 + k) for k in range(K)]


# Slow formulas, one example at a time -------------------------------------------------------


def probabilities(row: Tensor, tau: float = 1.0) -> list[float]:
    powers = [math.exp(z / tau) for z in row.tolist()]
    return [p / sum(powers) for p in powers]


def ce(row: Tensor, label: int, smoothing: float) -> float:
    p = probabilities(row)
    shares = [smoothing / C + (1 - smoothing) * (c == label) for c in range(C)]
    return -sum(q * math.log(x) for q, x in zip(shares, p, strict=True))


def kl(target: list[float], row: Tensor, tau: float) -> float:
    p = probabilities(row, tau)
    return tau**2 * sum(q * math.log(q / x) for q, x in zip(target, p, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def certainties(logvar: Tensor, low: float, high: float) -> list[float]:
    sure = [mean([math.exp(-v) for v in row]) for row in logvar.tolist()]
    return [min(high, max(low, s / mean(sure))) for s in sure]


def as_floats(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in terms.items()}


# The A-Step ---------------------------------------------------------------------------------


def a_terms(m: Asib, position: StepPosition, start: list[Tensor] | None = None) -> Terms:
    torch.manual_seed(3)
    return m.teacher_terms(STUDENT, TEACHERS, start, LABELS, position)


def slow_a_terms(
    m: Asib, position: StepPosition, start: list[Tensor] | None = None
) -> dict[str, float]:
    c = m.config
    latent = m.fuse(STUDENT.pooled, [t.pooled for t in TEACHERS])
    z = latent.mu
    if latent.logvar is not None and c.a_step_sample:
        torch.manual_seed(3)
        z = latent.mu + torch.exp(latent.logvar / 2) * torch.randn_like(latent.mu)
    v = m.head(z)
    weights = [1.0] * B
    if latent.logvar is not None:
        weights = certainties(latent.logvar, c.min_cw, c.max_cw)
        assert len(set(weights)) > 2
        assert {c.min_cw, c.max_cw} < set(weights)
    want = {
        "ce": c.w_ce
        * mean([weights[b] * ce(v[b], int(LABELS[b]), c.a_label_smoothing) for b in range(B)])
    }
    if position.stage > 0:
        pull = mean(
            [
                weights[b] * kl(probabilities(STUDENT.logits[b], c.tau), v[b], c.tau)
                for b in range(B)
            ]
        )
        ramp = min(1.0, (position.in_step - 2 + 1) / c.cccp_ramp_epochs)
        want |= {"kd": c.w_kd * pull, "cccp": c.cccp_alpha * ramp * pull}
    if latent.logvar is not None:
        beta = c.ib_beta * min(1.0, position.epoch / (c.ib_beta_warmup_epochs * position.total))
        rate = [
            -0.5 * sum(1 + s - u**2 - math.exp(s) for u, s in zip(us, ss, strict=True))
            for us, ss in zip(latent.mu.tolist(), latent.logvar.tolist(), strict=True)
        ]
        want["rate"] = beta * mean(rate)
    if c.w_feat > 0:
        query = m.query_adapter(STUDENT.pooled)
        width = latent.mu.shape[1]
        want["feat"] = c.w_feat * mean(
            [weights[b] * sum(((query[b] - latent.mu[b]) ** 2).tolist()) / width for b in range(B)]
        )
    return want if start is None else want | {"preserve": slow_preservation(c, start)}


def slow_preservation(c: AsibConfig, start: list[Tensor]) -> float:
    return c.lambda_pres * mean(
        [
            kl(probabilities(then[b], c.tau), now.logits[b], c.tau)
            for then, now in zip(start, TEACHERS, strict=True)
            for b in range(B)
        ]
    )


A_CASES: dict[str, tuple[dict[str, Any], StepPosition, list[Tensor] | None]] = {
    "no bottleneck, one stage": ({"bottleneck": False}, StepPosition(5, 8, 0, 5, 8), None),
    "bottleneck": ({}, StepPosition(5, 8, 0, 5, 8), None),
    "in the warm-up of β": ({"ib_beta_warmup_epochs": 0.9}, StepPosition(4, 8, 0, 4, 8), None),
    "collapsed form": ({"a_step_sample": False}, StepPosition(5, 8, 0, 5, 8), None),
    "second stage, ramp": ({}, StepPosition(10, 16, 1, 2, 8), None),
    "second stage, full": ({"w_kd": 0.7, "w_ce": 2.0}, StepPosition(13, 16, 1, 5, 8), None),
    "teachers adapt": (
        {"adapt": "backbone", "lambda_pres": 0.5},
        StepPosition(5, 8, 0, 5, 8),
        START,
    ),
    "everything": (
        {"w_feat": 0.4, "ib_beta": 0.2, "tau": 2.0, "adapt": "backbone", "a_label_smoothing": 0.2},
        StepPosition(13, 16, 1, 5, 8),
        START,
    ),
}


@pytest.mark.parametrize("case", A_CASES)
def test_the_terms_of_the_a_step_are_the_formula(case: str) -> None:
    options, position, start = A_CASES[case]
    m = asib(**({"min_cw": 0.97, "max_cw": 1.05} | options)).train()
    found = a_terms(m, position, start).losses
    want = slow_a_terms(m, position, start)
    assert found.keys() == want.keys()
    assert as_floats(found) == pytest.approx(want, rel=1e-9)
    assert all(abs(value) > 1e-9 for value in want.values())


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("start", [None, START], ids=["fixed teachers", "adapting teachers"])
def test_synergy_only_epochs_learn_from_the_labels_alone(
    start: list[Tensor] | None, stage: int
) -> None:
    """w_ce 1 and c ≡ 1: the cross-entropy as it is; teachers that learn stay preserved."""
    m = asib(w_ce=3.0, w_feat=1.0, min_cw=0.1, max_cw=9.0, adapt="backbone").train()
    for in_step in (0, 1):
        position = StepPosition(8 * stage + in_step, 16, stage, in_step, 8)
        assert m.synergy_only(position)
        assert m.beta(position) == 0
        found = as_floats(a_terms(m, position, start).losses)
        torch.manual_seed(3)
        latent = m.fuse(STUDENT.pooled, [t.pooled for t in TEACHERS], sample=True)
        v = m.head(latent.z)
        want = {"ce": mean([ce(v[b], int(LABELS[b]), 0.05) for b in range(B)])}
        if start is not None:
            want["preserve"] = slow_preservation(m.config, start)
        assert found == pytest.approx(want, rel=1e-9)
    assert not m.synergy_only(StepPosition(8 * stage + 2, 16, stage, 2, 8))


def test_what_the_a_step_reads_but_does_not_train() -> None:
    """No gradient to the student, to the certainty weight, or to the query of the pull."""
    student = Outputs(*(x.clone().requires_grad_() for x in STUDENT[:2]))
    m = asib(w_feat=1.0, num_stages=2).train()
    terms = m.teacher_terms(student, TEACHERS, None, LABELS, StepPosition(13, 16, 1, 5, 8)).losses
    sum(terms.values()).backward()
    assert student.logits.grad is None
    logvar = normal(B, D, seed=5).requires_grad_()
    latent = m.fuse(STUDENT.pooled, [t.pooled for t in TEACHERS])._replace(logvar=logvar)
    assert not m._certainty_weight(latent).requires_grad


def test_what_the_a_step_sees_is_logged_unweighted() -> None:
    m = asib().train()
    seen = as_floats(a_terms(m, StepPosition(5, 8, 0, 5, 8)).seen)
    latent = m.fuse(STUDENT.pooled, [t.pooled for t in TEACHERS])
    sigma = torch.exp(latent.logvar / 2)
    assert seen["bottleneck/rate"] == pytest.approx(
        losses.gaussian_rate(latent.mu, latent.logvar).mean().item()
    )
    for name, value in (("mean", sigma.mean()), ("min", sigma.min()), ("max", sigma.max())):
        assert seen[f"bottleneck/sigma_{name}"] == pytest.approx(value.item())
    unlike = TEACHERS[0].logits.argmax(1) != TEACHERS[1].logits.argmax(1)
    assert seen["kd/teacher_disagreement"] == pytest.approx(unlike.double().mean().item())
    assert (
        "bottleneck/rate" not in a_terms(asib(bottleneck=False), StepPosition(5, 8, 0, 5, 8)).seen
    )


MOMENT = StepPosition(5, 8, 0, 5, 8)


@pytest.mark.parametrize(("value", "bound"), [(250.0, 100.0), (99.0, 100.0), (8.0, 0.5)])
def test_the_soft_clamp_keeps_the_direction_of_the_gradient(value: float, bound: float) -> None:
    m = asib(loss_clamp="soft", loss_clamp_max=bound)
    x = torch.tensor([value / 2, 1.0], dtype=torch.float64, requires_grad=True)
    loss = x[0] * 2 * x[1]
    clamped = m.clamp_loss(loss, MOMENT)
    assert clamped.item() == pytest.approx(min(value, bound))
    (full,) = torch.autograd.grad(loss, x, retain_graph=True)
    (found,) = torch.autograd.grad(clamped, x)
    torch.testing.assert_close(found, full * min(1.0, bound / value), **CLOSE)


def test_the_hard_clamp_cuts_the_gradient() -> None:
    m = asib(loss_clamp="hard", loss_clamp_max=100.0)
    for value, gradient in ((250.0, 0.0), (99.0, 1.0)):
        x = torch.tensor(value, requires_grad=True)
        clamped = m.clamp_loss(x, MOMENT)
        assert clamped.item() == min(value, 100.0)
        assert torch.autograd.grad(clamped, x)[0].item() == gradient


def test_the_clamp_is_off_where_it_should_be() -> None:
    x = torch.tensor(250.0)
    for mode in ("soft", "hard"):
        m = asib(loss_clamp=mode, loss_clamp_warmup_epochs=3.0)
        assert [m.clamp_loss(x, StepPosition(e, 8, 0, e, 8)).item() for e in (0, 2, 3)] == [
            250,
            250,
            100,
        ]
    assert asib(loss_clamp="none").clamp_loss(x, MOMENT).item() == 250


@pytest.mark.parametrize("adapt", ["none", "adapters", "backbone"])
def test_the_parameters_that_learn(adapt: str) -> None:
    m = asib(adapt=adapt)
    names = {name.split(".")[0] for name, _ in m.trainable("A")}
    fixed = {"teacher_adapters"} if adapt == "none" else set()
    assert names == {"query_adapter", "teacher_adapters", "fusion", "head"} - fixed
    assert m.trainable("B") == []
    for target in ("none", "avg"):
        control = asib(kd_target=target)
        assert not control.fuses
        assert list(control.parameters()) == []
        assert control.trainable("A") == []


# The B-Step ---------------------------------------------------------------------------------

SYNERGY, SURE = normal(B, C, seed=40), torch.linspace(0.1, 4.0, B, dtype=torch.float64)
MIX = Mix(0.3, torch.tensor([5, 0, 1, 2, 4, 3]))


def slow_b_terms(
    m: Asib, teacher_outputs: TeacherOutputs | None, mix: Mix, position: StepPosition
) -> tuple[dict[str, float], float]:
    """Weighted terms, and the scale of the ratio cap."""
    c = m.config
    partner = range(B) if mix.partner is None else mix.partner.tolist()
    pairs = list(enumerate(partner))
    labels_ce = mean(
        [
            mix.lam * ce(STUDENT.logits[i], int(LABELS[i]), c.label_smoothing)
            + (1 - mix.lam) * ce(STUDENT.logits[i], int(LABELS[j]), c.label_smoothing)
            for i, j in pairs
        ]
    )
    e, total = position.epoch, position.total
    warm, cool = c.kd_warmup_epochs * total, c.kd_cooldown_epochs * total
    kd_eff = c.kd_alpha * min(1, (e + 1) / warm) * min(1, (total - 1 - e) / cool)
    if teacher_outputs is None or kd_eff == 0:
        return {"ce": c.ce_alpha * labels_ce}, 1.0
    share = [w / sum(c.teacher_weights) for w in c.teacher_weights]
    average = [sum(share[k] * teacher_outputs.teachers[k, b] for k in range(K)) for b in range(B)]
    targets, omegas = [], []
    for b in range(B):
        use = teacher_outputs.synergy is not None
        if use and c.kd_target == "auto":
            own, other = (
                ce(z, int(LABELS[b]), 0) for z in (teacher_outputs.synergy[b], average[b])
            )
            use = own < other
        logits = teacher_outputs.synergy[b] if use else average[b]
        scale, tau = (c.synergy_logit_scale, c.tau_syn) if use else (1.0, c.tau)
        targets.append(probabilities(scale * logits, tau))
        p = probabilities(logits)
        entropy = -sum(x * math.log(x) for x in p) / math.log(C)
        omega = max(c.kd_uncertainty_min, 1 / (1 + c.kd_uncertainty_weight * entropy))
        if use and teacher_outputs.certainty is not None:
            sure = float(teacher_outputs.certainty[b]) / mean(teacher_outputs.certainty.tolist())
            omega *= min(c.max_cw, max(c.min_cw, sure))
        omegas.append(omega)
    if c.target_view == "two_view":
        mixed = [
            [mix.lam * p + (1 - mix.lam) * q for p, q in zip(targets[i], targets[j], strict=True)]
            for i, j in pairs
        ]
        omegas = [mix.lam * omegas[i] + (1 - mix.lam) * omegas[j] for i, j in pairs]
        targets = mixed
    kd = mean([omegas[i] * kl(targets[i], STUDENT.logits[i], c.tau) for i in range(B)])
    cap = min(1.0, c.kd_max_ratio * labels_ce / kd) if e >= warm else 1.0
    return {"ce": c.ce_alpha * labels_ce, "kd": kd_eff * cap * kd}, cap


AVERAGE = TeacherOutputs(torch.stack([t.logits for t in TEACHERS]))
FUSED = AVERAGE._replace(synergy=SYNERGY)
CERTAIN = FUSED._replace(certainty=SURE)
B_CASES: dict[str, tuple[dict[str, Any], TeacherOutputs | None]] = {
    "no teacher": ({"kd_target": "none"}, None),
    "average": ({"kd_target": "avg"}, AVERAGE),
    "auto, gate closed": ({}, AVERAGE),
    "auto": ({}, FUSED),
    "auto, certainty": ({}, CERTAIN),
    "synergy": ({"kd_target": "synergy"}, CERTAIN),
    "synergy, gate closed": ({"kd_target": "synergy"}, AVERAGE),
    "clean": ({"target_view": "clean"}, CERTAIN),
    "no weights": ({"kd_uncertainty_weight": 0.0, "min_cw": 1.0, "max_cw": 1.0}, CERTAIN),
    "floors": ({"kd_uncertainty_weight": 5.0, "kd_uncertainty_min": 0.4}, CERTAIN),
    "other scales": (
        {
            "tau": 2.0,
            "tau_syn": 3.0,
            "synergy_logit_scale": 0.5,
            "ce_alpha": 0.2,
            "kd_alpha": 0.9,
            "label_smoothing": 0.2,
        },
        CERTAIN,
    ),
}


@pytest.mark.parametrize("epoch", [3, 40, 75, 79])
@pytest.mark.parametrize("mix", [UNMIXED, MIX], ids=["unmixed", "mixed"])
@pytest.mark.parametrize("case", B_CASES)
def test_the_terms_of_the_b_step_are_the_formula(case: str, mix: Mix, epoch: int) -> None:
    options, teacher_outputs = B_CASES[case]
    m = asib(**({"teacher_weights": [0.7, 0.3]} | options))
    position = StepPosition(epoch, 80)
    terms = m.student_terms(STUDENT, teacher_outputs, LABELS, mix, position)
    want, cap = slow_b_terms(m, teacher_outputs, mix, position)
    found = as_floats(terms.losses)
    assert found.keys() == want.keys()
    assert found == pytest.approx(want, rel=1e-6)  # soft labels are float32
    assert ("kd" in found) == (m.needs_teachers(position) and teacher_outputs is not None)
    if "kd" in found:
        assert terms.seen["kd/scale"].item() == pytest.approx(cap, rel=1e-6)
        assert terms.seen["kd/share"].item() == pytest.approx(
            want["kd"] / (want["kd"] + want["ce"]), rel=1e-6
        )
    if teacher_outputs is not None and teacher_outputs.synergy is not None and "kd" in found:
        share = terms.seen["synergy/share"].item()
        assert 0 < share < 1 if m.config.kd_target == "auto" else share == 1


def test_the_ratio_cap_holds_after_the_warm_up_only() -> None:
    m = asib(kd_target="avg", kd_max_ratio=0.01, ce_alpha=1.0, kd_alpha=1.0)
    warm, after = StepPosition(9, 80), StepPosition(10, 80)
    early = m.student_terms(STUDENT, AVERAGE, LABELS, UNMIXED, warm)
    late = m.student_terms(STUDENT, AVERAGE, LABELS, UNMIXED, after)
    assert early.seen["kd/scale"].item() == 1
    assert late.losses["kd"].item() == pytest.approx(0.01 * late.losses["ce"].item())
    assert early.losses["kd"] > 10 * late.losses["kd"]


def test_the_ratio_cap_scales_the_gradient_and_has_none_of_its_own() -> None:
    logits = STUDENT.logits.clone().requires_grad_()
    student = STUDENT._replace(logits=logits)
    capped, free = asib(kd_target="avg", kd_max_ratio=0.01), asib(kd_target="avg", kd_max_ratio=1e9)
    gradients = [
        torch.autograd.grad(
            m.student_terms(student, AVERAGE, LABELS, UNMIXED, StepPosition(40, 80)).losses["kd"],
            logits,
        )[0]
        for m in (capped, free)
    ]
    scale = capped.student_terms(STUDENT, AVERAGE, LABELS, UNMIXED, StepPosition(40, 80)).seen[
        "kd/scale"
    ]
    assert scale < 0.5
    torch.testing.assert_close(gradients[0], scale * gradients[1], **CLOSE)


@pytest.mark.parametrize("teacher_outputs", [AVERAGE, CERTAIN], ids=["average", "synergy"])
def test_two_view_with_lambda_one_is_the_clean_target(teacher_outputs: TeacherOutputs) -> None:
    mix = MIX._replace(lam=1.0)
    both, clean = asib(target_view="two_view"), asib(target_view="clean")
    position = StepPosition(40, 80)
    one = both.student_terms(STUDENT, teacher_outputs, LABELS, mix, position).losses
    other = clean.student_terms(STUDENT, teacher_outputs, LABELS, mix, position).losses
    assert tiny.differences(one, other) == []
    unmixed = both.student_terms(STUDENT, teacher_outputs, LABELS, UNMIXED, position).losses
    torch.testing.assert_close(one, unmixed, **CLOSE)
    mixed = both.student_terms(STUDENT, teacher_outputs, LABELS, MIX, position).losses
    assert (mixed["kd"] - one["kd"]).abs() > 1e-3


def test_the_cooldown_ends_in_an_epoch_without_teachers() -> None:
    m = asib(kd_target="avg")
    assert [m.needs_teachers(StepPosition(e, 8)) for e in (0, 6, 7)] == [True, True, False]
    assert m.student_terms(STUDENT, None, LABELS, UNMIXED, StepPosition(7, 8)).losses.keys() == {
        "ce"
    }


# Errors and lengths -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "budget", "part"),
    [
        ({"synergy_only_epochs": 8.0}, 32, "leaves nothing of an A-Step of 8 epochs"),
        ({}, 3, "leaves nothing of an A-Step of 0 epochs"),
        ({"latent_dim": 10, "heads": 4}, 32, "latent_dim=10 is not a multiple of method.heads=4"),
        ({"w_feat": 1.0, "token_dim": 64, "latent_dim": 32}, 32, "method.latent_dim=32 must equal"),
    ],
)
def test_contradictions_are_reported(options: dict[str, Any], budget: int, part: str) -> None:
    (found,) = AsibConfig(**options).errors(budget, 64, 2)
    assert part in found
    assert AsibConfig(**(options | {"kd_target": "avg"})).errors(budget, 64, 2) == []
    assert AsibConfig().errors(32, 64, 2) == []


def test_the_a_step_budget_is_shared_among_the_stages() -> None:
    assert AsibConfig(num_stages=4).a_step_epochs(32) == [8, 8, 8, 8]
    assert AsibConfig(num_stages=3).a_step_epochs(32) == [11, 11, 10]
    assert AsibConfig(num_stages=1).a_step_epochs(32) == [32]
    assert AsibConfig(num_stages=4, kd_target="avg").a_step_epochs(32) == []
    assert AsibConfig(num_stages=4, kd_target="avg").stage_count() == 1
    assert AsibConfig().widths(64) == (256, 256)
    assert AsibConfig(token_dim=32).widths(64) == (32, 32)
    assert AsibConfig(token_dim=32, latent_dim=16).widths(64) == (32, 16)


# Whole runs: the gate -----------------------------------------------------------------------


def test_a_closed_gate_is_average_distillation_bit_for_bit(world: World) -> None:
    average = tiny.run(tiny.rung("KD"), world)
    closed = tiny.run(tiny.rung("L0", enable_kd_after_syn_acc=1.01), world)
    opened = tiny.run(tiny.rung("L0"), world)
    gates = [e.metrics["synergy/gate"] for e in closed.epochs if "synergy/gate" in e.metrics]
    assert gates == [0.0]
    assert opened.state.gate_open
    weights = average.state.student.state_dict()
    assert tiny.differences(weights, closed.state.student.state_dict()) == []
    assert (
        tiny.differences(
            average.state.best, closed.state.best | {"epoch": closed.state.best["epoch"] - 8}
        )
        == []
    )
    assert tiny.differences(weights, opened.state.student.state_dict()) != []


def scripted(accuracies: list[float], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the A-Step's evaluations find these synergy accuracies, one after the other."""
    labels, left = world.data.val.labels, iter(accuracies)

    def answers(method: Asib, student: Any, teachers: Any, **options: object) -> Synergy:
        right = round(next(left) * len(labels))
        guessed = torch.where(torch.arange(len(labels)) < right, labels, (labels + 1) % 10)
        return Synergy(torch.nn.functional.one_hot(guessed, 10).half(), None)

    monkeypatch.setattr(a_step, "synergy_rows", answers)


ONE_STAGE = ["budget.adapt_epochs=5", "budget.student_epochs=1", "method.teacher_eval_every=1"]


def test_the_best_state_of_an_a_step_is_restored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earliest of equals, the teachers' blocks with it."""
    scripted([0.2, 0.6, 0.4, 0.6, 0.1], world, monkeypatch)
    config = tiny.rung("L3", *ONE_STAGE, "method.num_stages=1", "method.a_lr=1e-2")
    state = tiny.new_state(config, world)
    epochs, kept = tiny.epochs_of(config, world, state), []
    for _ in range(4):
        next(epochs)
        kept.append([snapshot(m) for m in (state.method, *state.teachers)])
    last = next(epochs)
    found = [m.state_dict() for m in (state.method, *state.teachers)]
    assert tiny.differences(found, kept[1]) == []
    for other in (0, 2, 3):
        assert len(tiny.differences(found, kept[other])) > 10
    assert last.metrics["synergy/restored"] == state.synergy_top1 == pytest.approx(13 / 22)
    assert last.metrics["synergy/top1"] == pytest.approx(2 / 22)
    assert state.a_best == {}
    assert state.a_optimiser is None


@pytest.mark.parametrize(
    ("accuracy", "threshold", "opened"),
    [
        (11 / 22, 11 / 22, True),
        (11 / 22, math.nextafter(11 / 22, 1), False),
        (12 / 22, 11 / 22, True),
        (0.0, 0.0, False),
        (1 / 22, 0.0, True),
        (1.0, 1.0, True),
    ],
)
def test_the_gate_opens_at_its_threshold(
    accuracy: float, threshold: float, opened: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([accuracy] * 5, world, monkeypatch)
    config = tiny.rung("L1", *ONE_STAGE, enable_kd_after_syn_acc=threshold)
    if 0 < accuracy < 1 and threshold:
        measured = float(torch.tensor(accuracy, dtype=torch.float32))
        config.method.enable_kd_after_syn_acc = measured if opened else math.nextafter(measured, 1)
    state = tiny.new_state(config, world)
    epochs = list(tiny.epochs_of(config, world, state))
    assert state.gate_open == opened
    assert epochs[4].metrics["synergy/gate"] == float(opened)
    student = epochs[5].metrics
    assert ("synergy/share" in student) == (opened and student.get("kd/weight", 0) > 0)


def test_the_moving_average_is_logged_and_can_be_the_gates_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = [4 / 22, 12 / 22, 20 / 22, 8 / 22, 16 / 22]
    want = [accuracies[0]]
    for accuracy in accuracies[1:]:
        want.append(0.8 * want[-1] + 0.2 * accuracy)
    for gate_on, threshold, opened in (
        ("raw", 20 / 22 - 1e-3, True),
        ("ema", want[-1] - 1e-3, True),
        ("ema", want[-1] + 1e-3, False),
    ):
        scripted(accuracies, world, monkeypatch)
        config = tiny.rung("L1", *ONE_STAGE, gate_on=gate_on, enable_kd_after_syn_acc=threshold)
        state = tiny.new_state(config, world)
        epochs = list(tiny.epochs_of(config, world, state))[:5]
        assert [e.metrics["synergy/top1_ema"] for e in epochs] == pytest.approx(want, rel=1e-6)
        assert state.gate_open == opened


@pytest.mark.parametrize(("every", "evaluated"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])])
def test_synergy_accuracy_is_measured_every_so_many_epochs_and_at_the_end(
    every: int, evaluated: list[int], world: World
) -> None:
    config = tiny.rung("L1", *ONE_STAGE, teacher_eval_every=every)
    epochs = tiny.run(config, world).epochs[:5]
    assert [e.index for e in epochs if "synergy/top1" in e.metrics] == evaluated
    assert [e.index for e in epochs if "synergy/gate" in e.metrics] == [4]


def test_teachers_and_synergy_gain_are_measured_around_every_a_step(
    world: World, two_stages: dict[str, Run]
) -> None:
    """Before and after each A-Step; the gain is over the best teacher as it is then."""
    boundaries = [e.metrics for e in two_stages["L3"].epochs if "synergy/gain" in e.metrics]
    starts = [e.metrics for e in two_stages["L3"].epochs if "teacher0/top1_before" in e.metrics]
    assert len(boundaries) == len(starts) == 2
    labels = world.data.val.labels
    for k, teacher in enumerate(world.teachers):
        assert starts[0][f"teacher{k}/top1_before"] == top1(teacher.bank.val.logits, labels)
        assert starts[1][f"teacher{k}/top1_before"] == boundaries[0][f"teacher{k}/top1_after"]
    loaded = [teacher.bank.val.logits.float() for teacher in world.teachers]
    best, average = max(top1(x, labels) for x in loaded), top1((loaded[0] + loaded[1]) / 2, labels)
    for metrics in boundaries:
        restored = metrics["synergy/restored"]
        now = max(metrics[f"teacher{k}/top1_after"] for k in (0, 1))
        assert metrics["synergy/gain"] == restored - now
        assert metrics["synergy/gain_original"] == restored - best
        assert metrics["synergy/gain_average_original"] == restored - average
    teachers = copy.deepcopy(two_stages["L3"].state.teachers)
    adapted = [tiny.frozen_teacher(t, tiny.teacher_config(), world.data) for t in teachers]
    both = top1(torch.stack([t.bank.val.logits.float() for t in adapted]).mean(0), labels)
    last = boundaries[-1]
    assert last["synergy/gain_average"] == last["synergy/restored"] - both
    fixed = [e.metrics for e in two_stages["L2"].epochs if "synergy/gain" in e.metrics]
    for metrics in fixed:
        for name, unfused in (("", best), ("_average", average)):
            gain = metrics["synergy/restored"] - unfused
            assert metrics[f"synergy/gain{name}"] == metrics[f"synergy/gain{name}_original"] == gain
        assert "teacher0/top1_after" not in metrics


@pytest.mark.parametrize("limit", [0.5, 0.01, 0.0])
def test_the_a_steps_gradient_is_clipped(limit: float, world: World) -> None:
    config = tiny.rung("L3", *ONE_STAGE, "method.num_stages=1", a_clip=limit)
    state, norms = tiny.new_state(config, world), []
    step = torch.optim.AdamW.step

    def measured(optimiser: torch.optim.Optimizer, *arguments: Any) -> Any:
        if optimiser is not state.optimiser:
            parts = [
                p.grad.norm()
                for g in optimiser.param_groups
                for p in g["params"]
                if p.grad is not None
            ]
            norms.append(torch.stack(parts).norm().item())
        return step(optimiser, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", measured)
        list(tiny.epochs_of(config, world, state))
    assert len(norms) == 5 * 4
    if limit:
        assert max(norms) == pytest.approx(limit, rel=1e-3)
    else:
        assert max(norms) > 0.5


# Whole runs: what moves ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def before(world: World) -> list[dict[str, Tensor]]:
    return [tiny.clone(t.model) for t in world.teachers]


@pytest.mark.parametrize("cfg", ["KD", "L2", "L3"])
def test_the_callers_teachers_are_bitwise_unchanged(
    cfg: str, world: World, before: list[dict[str, Tensor]]
) -> None:
    banks = [[table.clone() for rows in t.bank for table in rows] for t in world.teachers]
    run = tiny.run(tiny.rung(cfg, "method.a_lr=1e-2"), world)
    for teacher, weights, bank in zip(world.teachers, before, banks, strict=True):
        assert tiny.differences(weights, tiny.clone(teacher.model)) == []
        assert not any(module.training for module in teacher.model.modules())
        assert not any(p.requires_grad or p.grad is not None for p in teacher.model.parameters())
        assert tiny.differences(bank, [table for rows in teacher.bank for table in rows]) == []
    assert len(run.state.teachers) == (2 if cfg == "L3" else 0)


@pytest.mark.parametrize(
    ("levels", "blocks"),
    [
        ([1], {"layer3", "fc"}),
        ([0], {"fc"}),
        ([2], {"layer2", "layer3", "fc"}),
    ],
)
def test_adaptation_moves_the_top_blocks_of_the_runs_own_copies_alone(
    levels: list[int], blocks: set[str], world: World, before: list[dict[str, Tensor]]
) -> None:
    config = tiny.rung("L3", teacher_levels=levels, a_lr=1e-2)
    state = tiny.new_state(config, world)
    for own, teacher in zip(state.teachers, world.teachers, strict=True):
        assert own is not teacher.model
    list(tiny.epochs_of(config, world, state))
    for own, weights in zip(state.teachers, before, strict=True):
        changed = {path.strip("/") for path in tiny.differences(weights, tiny.clone(own))}
        parameters = {name for name, _ in own.named_parameters()}
        assert changed == {name for name in parameters if name.split(".")[0] in blocks}
        assert not any(module.training for module in own.modules())


def test_levels_may_change_from_stage_to_stage(world: World) -> None:
    config = tiny.rung("L3", *tiny.TWO_STAGES, teacher_levels=[0, 1], a_lr=1e-2)
    state = tiny.new_state(config, world)
    moved: list[set[str]] = []
    last = [tiny.clone(t) for t in state.teachers]
    for epoch in tiny.epochs_of(config, world, state):
        if epoch.step == "B" and len(moved) < epoch.stage:
            now = [tiny.clone(t) for t in state.teachers]
            moved.append({p.split("/")[2].split(".")[0] for p in tiny.differences(last, now)})
            last = now
    assert moved == [{"fc"}, {"layer3", "fc"}]


def test_the_fusion_learns_in_a_steps_and_the_student_in_b_steps(world: World) -> None:
    config = tiny.rung("L3", *tiny.TWO_STAGES)
    state = tiny.new_state(config, world)
    fusion = tiny.clone(state.method)
    teachers, student = [tiny.clone(t) for t in state.teachers], tiny.clone(state.student)
    for epoch in tiny.epochs_of(config, world, state):
        now = tiny.clone(state.method), [tiny.clone(t) for t in state.teachers]
        still = tiny.differences([fusion, teachers], list(now)) == []
        stood = tiny.differences(student, tiny.clone(state.student)) == []
        assert stood == (epoch.step == "A")
        if epoch.step == "B":
            assert still
            assert not state.method.training
        fusion, teachers = now
        student = tiny.clone(state.student)


def test_adapters_that_must_not_learn_do_not(world: World) -> None:
    for adapt, expected in (("none", set()), ("adapters", {"teacher_adapters"})):
        config = tiny.rung("L1", adapt=adapt, a_lr=1e-2)
        state = tiny.new_state(config, world)
        first = tiny.clone(state.method)
        list(tiny.epochs_of(config, world, state))
        changed = {
            p.strip("/").split(".")[0] for p in tiny.differences(first, tiny.clone(state.method))
        }
        assert changed == {"query_adapter", "fusion", "head"} | expected


def test_adapted_teachers_get_a_bank_of_their_own_for_the_stage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the student is taught agrees with the teachers as they are after the A-Step."""
    config = tiny.rung("L3", "method.num_stages=1", "budget.adapt_epochs=2", a_lr=1e-2)
    state = tiny.new_state(config, world)
    taught: list[tuple[Tensor, TeacherOutputs]] = []
    terms = state.method.student_terms

    def record(student, teacher_outputs, labels, mix, position):
        taught.append(teacher_outputs)
        return terms(student, teacher_outputs, labels, mix, position)

    monkeypatch.setattr(state.method, "student_terms", record)
    list(tiny.epochs_of(config, world, state))
    inputs = StepInputs.prepare(config, world.data, world.teachers, state)
    every = torch.arange(inputs.views.rows)
    with torch.no_grad():
        live = torch.stack([t(inputs.views.batch(every)) for t in state.teachers])
    banked = torch.stack([t.bank.train.logits for t in world.teachers]).float()
    assert (live - banked).abs().max() > 0.05
    for teacher_outputs in taught[:4]:
        distance = torch.cdist(
            teacher_outputs.teachers.transpose(0, 1).flatten(1), live.transpose(0, 1).flatten(1)
        )
        assert distance.min(1).values.max() < 1e-2
    # …and so does the synergy: with the student of the stage's start as query.
    own = tiny.new_state(config, world).student.eval()
    with torch.no_grad():
        query = outputs(own, inputs.views.batch(every))
        pooled = [outputs(t, inputs.views.batch(every)).pooled for t in state.teachers]
        latent = state.method.eval().fuse(query.pooled, pooled)
        synergy = state.method.head(latent.mu)
    for teacher_outputs in taught[:4]:
        assert torch.cdist(teacher_outputs.synergy, synergy).min(1).values.max() < 1e-2


# Synergy of all rows ------------------------------------------------------------------------


def test_synergy_of_rows_is_unsampled_and_restores_the_mode(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.distillation.stage_cache.CHUNK", 64)
    config = tiny.rung("L1", dropout=0.5)
    method = tiny.new_state(config, world).method.train()
    bank = world.teachers[0].bank.train
    found = synergy_rows(method, bank, [t.bank.train for t in world.teachers])
    assert method.training
    method.eval()
    pooled = [t.bank.train.pooled.float() for t in world.teachers]
    latent = method.fuse(bank.pooled.float(), pooled)
    torch.testing.assert_close(found.logits.float(), method.head(latent.mu), rtol=2**-9, atol=1e-4)
    sure = torch.exp(-latent.logvar).mean(1)
    torch.testing.assert_close(found.certainty, sure, rtol=1e-4, atol=1e-5)
    assert found.logits.dtype == torch.half
    assert not found.logits.requires_grad
    plain = tiny.new_state(tiny.rung("L0"), world).method
    assert synergy_rows(plain, bank, [bank, bank]).certainty is None


def test_synergy_accuracy_is_that_of_the_mean_on_validation(
    world: World, two_stages: dict[str, Run]
) -> None:
    """Recomputed from the state that a run's last A-Step restored."""
    run = two_stages["L2"]
    state = run.state
    inputs = StepInputs.prepare(
        tiny.rung("L2", *tiny.TWO_STAGES), world.data, world.teachers, state
    )
    student = tiny.new_state(inputs.config, world).student
    student.load_state_dict(state.stage_student)
    with torch.no_grad():
        images = inputs.normalise(world.data.val.pixels)
        query = outputs(student.eval(), images).pooled
        pooled = [outputs(t.model, images).pooled for t in world.teachers]
        logits = state.method.eval().head(state.method.fuse(query, pooled).mu)
    last = [e for e in run.epochs if "synergy/restored" in e.metrics][-1]
    found = last.metrics["synergy/restored"]
    assert found == pytest.approx(top1(logits, world.data.val.labels), abs=1e-6)
    evaluated = [e.metrics["synergy/top1"] for e in run.epochs[5:8] if "synergy/top1" in e.metrics]
    assert found == max(evaluated)


# Pooled widths: shufflenet_v2 1024, mobilenet_v2 and efficientnet_b0 1280, resnet50 2048.
@pytest.mark.parametrize(
    ("width", "token"), [(64, 256), (256, 256), (1024, 256), (1280, 256), (2048, 512)]
)
def test_small_students_get_narrow_tokens(width: int, token: int) -> None:
    assert default_token_dim(width) == token


def test_a_donors_label_routes_and_its_weight_counts() -> None:
    """Under a placebo of the fusion nothing of target and weight depends on the image's label."""
    m = asib(kd_label_guard=True)
    position = StepPosition(40, 80)
    donor = FUSED._replace(image=torch.arange(B))
    m.dims = m.dims._replace(labels=LABELS)  # of the donors
    found = m._guided(AVERAGE._replace(donor=donor), (LABELS + 2) % C, UNMIXED, position, B)
    expected = guidance(m.config, donor, LABELS, UNMIXED, position)
    own = guidance(m.config, AVERAGE, (LABELS + 2) % C, UNMIXED, position)
    fused = expected.chosen
    assert fused is not None
    assert 0 < fused.sum() < B
    for b in range(B):
        one = expected if fused[b] else own
        assert torch.equal(found.target[b], one.target[b])
        assert found.omega[b] == one.omega[b]
    other = m._guided(AVERAGE._replace(donor=donor), (LABELS + 1) % C, UNMIXED, position, B)
    assert torch.equal(other.target[fused], found.target[fused])
    assert torch.equal(other.omega[fused], found.omega[fused])
