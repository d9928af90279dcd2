"""Every option at the ends of its range composes or is refused, and a short run of it ends."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.config import ConfigError, compose
from pipeline.config.fields import leaves
from pipeline.identity import distill_config
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.distillation.config import BudgetConfig
from trainers.loop import NonFinite
from trainers.methods import METHODS
from trainers.mixing import MixConfig
from trainers.optim import StudentOptimConfig
from trainers.options import OptionInfo

SHORT = [*tiny.SMALL, "budget.student_epochs=2", "budget.adapt_epochs=4", "mix.start=0"]
LADDER = [
    "cfg=L4",
    *tiny.OVERRIDES,
    *SHORT,
    "method.num_stages=2",
    "method.kd_cooldown_epochs=0",
]
SWITCHED_ON = [
    "method.ema_weight=1",
    "method.teacher2_weight_decay_len=0.5",
    "method.kd_ens_alpha=0.5",
    "method.use_dkd_with_synergy=true",
    "method.feat_kd_alpha=0.1",
    "method.disagree_lambda_high=2",
    "method.kd_label_guard=true",
    "method.kd_sample_gate=true",
    "method.synergy_temp_learnable=true",
    "method.use_mu_for_kd=false",
]
SHARED = [text for text in tiny.OVERRIDES if not text.startswith("method.")]
# Steps so large that no training survives them: the run fails with a non-finite loss, and says so.
DIVERGE = ("optim.lr", "optim.min_lr", "method.a_lr", "method.a_weight_decay")


def values(hint: Any, info: OptionInfo) -> list[Any]:
    """Both ends of the range of an option (where it has none, small and large ones), or choices."""
    if info.choices is not None:
        return list(info.choices())
    kinds = {hint, *typing.get_args(hint)}
    if bool in kinds:
        return ["true", "false"]
    if str in kinds:
        return []
    whole = int in kinds or hint == list[int] or list[int] in kinds
    ends = [end for end in (info.low, info.high) if end is not None]
    ends += [] if info.high is not None else ([2, 24] if whole else [0.5, 2, 1000])
    numbers = [int(end) if whole else float(end) for end in ends]
    if hint in (list[int], list[float]) or {list[int], list[float]} & kinds:
        return ["[]", *(f"[{n}]" for n in numbers), *(f"[{n},{n}]" for n in numbers)]
    return numbers


def cases() -> Iterator[tuple[str, list[str]]]:
    """(what is varied, overrides) of every group of options."""
    groups: list[tuple[str, list[str], str, type]] = [
        ("asib", [*LADDER, *SWITCHED_ON], "method.", METHODS["asib"].config_type),
        ("mix", LADDER, "mix.", MixConfig),
        ("optim", LADDER, "optim.", StudentOptimConfig),
        ("budget", LADDER, "budget.", BudgetConfig),
    ]
    groups += [
        (name, [f"method={name}", *SHARED, *SHORT], "method.", kind.config_type)
        for name, kind in METHODS.items()
        if name != "asib"
    ]
    for group, base, prefix, config in groups:
        for key, hint, info in leaves(config, prefix):
            if key not in ("method.name", "budget.matched_to"):
                for value in values(hint, info):
                    yield group, [*base, f"{key}={value}"]


CASES: dict[str, list[list[str]]] = {}
for _group, _words in cases():
    CASES.setdefault(_group, []).append(_words)


@pytest.fixture(scope="module")
def small() -> World:
    return tiny.make_small_world()


@pytest.mark.thorough
@pytest.mark.parametrize("group", CASES)
def test_every_option_at_its_extremes_is_refused_or_ends(group: str, small: World) -> None:
    ran = 0
    for words in CASES[group]:
        try:
            config = compose(words)
        except ConfigError:
            continue
        key = words[-1].partition("=")[0]
        try:
            tiny.run(distill_config(config), small)
        except NonFinite:
            assert key in DIVERGE, words[-1]
        ran += 1
    assert ran > len(CASES[group]) / 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["teacher_weights=[0,1]", "teacher2_weight_decay_len=0.5"],
            "teacher 1 alone has a weight, and method.teacher2_weight_decay_len=0.5 takes it away",
        ),
        (
            ["feat_kd_alpha=0.1", "latent_dim=32"],
            "method.feat_kd_alpha=0.1 compares the student's query with the latent: "
            "method.latent_dim=32 must equal method.token_dim=16",
        ),
    ],
)
def test_what_would_fail_hours_later_is_an_error(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny.compose("L2", *(f"method.{word}" for word in words))
    assert sentence in str(raised.value)


def test_lengths_of_stages_can_be_given(small: World) -> None:
    given = tiny.rung(
        "L2",
        *SHORT,
        "method.num_stages=2",
        "budget.student_epochs=3",
        "budget.student_epochs_per_stage=[1,2]",
    )
    steps = [(epoch.step, epoch.stage) for epoch in tiny.run(given, small).epochs]
    assert steps == [("A", 1)] * 2 + [("B", 1)] + [("A", 2)] * 2 + [("B", 2)] * 2
    with pytest.raises(ConfigError, match=r"one number for each of the method's stages \(4\)"):
        tiny.compose("L2", "budget.student_epochs_per_stage=[1,3]")
