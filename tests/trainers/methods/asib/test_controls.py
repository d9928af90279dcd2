"""A control that controls nothing is worse than none: every placebo changes what the student learns
from every source of teacher outputs, and run keys and results belong together, one to one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache
from typing import NamedTuple

import pytest

from pipeline.config import ConfigError
from pipeline.identity import distill_config, run_key
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.weight_digest import state_digests

SOURCES = {
    "tables": [],
    "live query": ["method.query=live"],
    "fresh crops": ["data.views=0"],
    "fresh crops and live query": ["data.views=0", "method.query=live"],
    "average of the student": ["method.ema_weight=1"],
}
PLACEBOS = {
    "KD": ("none", "teachers"),
    "L2": ("none", "tokens", "image", "class", "image_by_label"),
    "L3": ("none", "tokens", "image"),
}
BASE = [
    *tiny.SMALL,
    "method.kd_alpha=1",
    "method.num_stages=2",
    "budget.adapt_epochs=8",
    "budget.student_epochs=4",
    "method.kd_cooldown_epochs=1",
    "mix.start=0.5",
    "method.loss_clamp_max=2",  # so small that it is reached
]
# A value of every option of ASIB that differs from its default and bites in so short a run, after
# the options that it needs. `gate_on` is left out: it matters only where two readings disagree.
SWITCHES = """
ce_alpha=0.5; label_smoothing=0.2; kd_target=none; kd_target=teacher; kd_target=avg
kd_target=weighted_conf; kd_target=synergy; kd_target=auto; kd_alpha=0.6; tau=2; tau_syn=2
teacher_weights=[0.7,0.3]; target_view=clean; target_view=same; kd_uncertainty_weight=0
kd_uncertainty_min=0.95; kd_warmup_epochs=2; kd_cooldown_epochs=2; kd_max_ratio=0.001; token_dim=32
latent_dim=32; heads=2; dropout=0.5; synergy_logit_scale=0.5; enable_kd_after_syn_acc=1
bottleneck=true; bottleneck=false; a_step_sample=false; ib_beta=0.1
ib_beta=0.1 ib_beta_warmup_epochs=3; logvar_clip=0.01; min_std=0.9; min_cw=1; max_cw=1
num_stages=1; cccp_alpha=1; cccp_ramp_epochs=0; synergy_only_epochs=3; w_ce=2; w_kd=2; w_feat=1
a_label_smoothing=0.2; a_lr=1e-2; a_weight_decay=0.5; ib_mbm_lr_factor=2; a_clip=0.01
loss_clamp=hard; loss_clamp=none; loss_clamp_max=1; loss_clamp_warmup_epochs=0.5
teacher_eval_every=1; synergy_ema_alpha=0.5; adapt=none; adapt=adapters; adapt=backbone
teacher_levels=[0]; lambda_pres=10; student_levels=[1]; student_levels=[-1,2]
student_levels=[-1,2] freeze_bn=true; placebo=teachers; placebo=tokens; placebo=image; placebo=class
placebo=image_by_label; kd_target=teacher teacher_index=1; kd_target=weighted_conf tau_gate=0.2
teacher2_weight_decay_len=2; teacher2_weight_decay_len=2 teacher2_weight_decay_start=1
kd_warmup_epochs=3; kd_warmup_epochs=3 kd_ens_alpha=1; query=live; ema_weight=1
ema_weight=1 ema_decay=0.5; ema_weight=1 ema_update_every=2; ema_weight=1 ema_view=first
use_dkd_with_synergy=true; use_dkd_with_synergy=true dkd_alpha=2
use_dkd_with_synergy=true dkd_beta=2; feat_kd_alpha=1; feat_kd_alpha=1 feat_kd_clip=0.1
feat_kd_alpha=1 feat_kd_huber_beta=0.1; disagree_lambda_high=3; disagree_lambda_low=0.3
disagree_lambda_high=3 disagree_mode=both_wrong; kd_label_guard=true
kd_label_guard=true kd_correct_min=0.5; kd_sample_gate=true
kd_sample_gate=true kd_sample_max_ratio=1 kd_sample_thr=0.1
kd_sample_gate=true kd_sample_min_ratio=0.4 kd_sample_thr=0.01
kd_sample_gate=true kd_sample_max_ratio=0.2; kd_sample_gate=true kd_sample_reweight=true
synergy_temp_learnable=true; synergy_temp_learnable=true synergy_temp_init=1
synergy_temp_learnable=true synergy_temp_reg=1; synergy_eval_teacher_indices=[1]
use_mu_for_kd=false
"""
# Other spellings of one experiment.
SAME = """
teacher_weights=[1,1]; token_dim=16 latent_dim=16; synergy_eval_teacher_indices=[1,0]
min_std=0.001
"""


class Result(NamedTuple):
    """What a run ended with: its student's weights, and all that it logged."""

    student: float
    logged: tuple[tuple[str, float], ...]


def words_of(text: str) -> list[list[str]]:
    """`a=1; b=2 c=3` as overrides of the method."""
    cases = [case for line in text.strip().splitlines() for case in line.split(";")]
    return [[f"method.{word}" for word in case.split()] for case in cases]


@pytest.fixture(scope="module")
def small() -> World:
    return tiny.make_small_world()


def result(cfg: str, overrides: list[str], world: World) -> tuple[str, Result]:
    """(run key, result) of a tiny run."""
    config = tiny.compose(cfg, *BASE, *overrides)
    run = tiny.run(distill_config(config), world)
    student = state_digests(student=[run.state.student])["state/student"]
    logged = [
        (f"{epoch.index} {name}", value)
        for epoch in run.epochs
        for name, value in epoch.metrics.items()
        if not name.startswith("cost/")
    ]
    return run_key("distill", config), Result(student, tuple(sorted(logged)))


MANY = pytest.mark.thorough
CASES = [
    pytest.param(cfg, source, marks=() if (cfg, source) == ("KD", "fresh crops") else MANY)
    for cfg, source in itertools.product(PLACEBOS, SOURCES)
    if cfg != "KD" or "query" not in source
]


@pytest.mark.parametrize(("cfg", "source"), CASES)
def test_every_placebo_changes_the_student_whatever_the_source(
    cfg: str, source: str, small: World
) -> None:
    """Compared pair by pair, with the rung itself too."""
    found = {
        kind: result(cfg, [*SOURCES[source], f"method.placebo={kind}"], small)
        for kind in PLACEBOS[cfg]
    }
    assert len({key for key, _ in found.values()}) == len(found)
    assert len({one.student for _, one in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("cfg", "overrides", "sentence"),
    [
        ("KD", ["placebo=tokens"], "method.kd_target=avg has no such information"),
        ("CE", ["placebo=teachers"], "method.kd_target=none has no such information"),
        ("L2", ["placebo=teachers"], "reads features, not logits; give tokens, image or class"),
        ("L2", ["placebo=image_by_label", "kd_target=synergy"], "does not route by labels"),
        ("side_asib_cccp", ["placebo=image"], "needs method.target_view two_view or clean"),
    ],
)
def test_a_placebo_that_would_take_nothing_away_is_an_error(
    cfg: str, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny.compose(cfg, *(f"method.{word}" for word in overrides))
    assert sentence in str(raised.value)


@MANY
@pytest.mark.parametrize("cfg", ["KD", "L2", "L4"])
def test_two_keys_never_give_one_result_and_one_key_never_two(cfg: str, small: World) -> None:
    """Over all options of the method. What is no part of a configuration's key changes nothing."""
    results: dict[str, set[Result]] = defaultdict(set)
    names: dict[Result, dict[str, str]] = defaultdict(dict)
    for words in [[], *words_of(SWITCHES), *words_of(SAME)]:
        try:
            key, found = result(cfg, words, small)
        except ConfigError:  # a switch that this rung has not
            continue
        results[key].add(found)
        names[found][key] = " ".join(words)
    assert len(results) > (30 if cfg == "KD" else 80)
    assert [key for key, found in results.items() if len(found) > 1] == []
    assert [sorted(keys.values()) for keys in names.values() if len(keys) > 1] == []


@cache
def default_key(cfg: str) -> str:
    return run_key("distill", tiny.compose(cfg, *BASE))


@pytest.mark.parametrize("words", words_of(SAME), ids=" ".join)
@pytest.mark.parametrize("cfg", ["L2", "L3"])
def test_one_experiment_has_one_key_however_it_is_spelt(cfg: str, words: list[str]) -> None:
    assert run_key("distill", tiny.compose(cfg, *BASE, *words)) == default_key(cfg)
