"""Experiments by name: each composes, its commands are accepted, the command line wins."""

from __future__ import annotations

import re
import shlex

import pytest

from pipeline.cli.arguments import overrides_of
from pipeline.cli.hydra_flags import taken
from pipeline.config import Config, compose
from pipeline.config.groups import CONF, options_of
from pipeline.config.sources import sources
from pipeline.config.sweep import expand

EXPERIMENTS = options_of("experiment")
COMMAND = re.compile(r"^# python -m pipeline (\w+) (.*)$", re.M)
RUNGS = ("L0", "L1", "L2", "L3", "L4", "side_cccp_ppf", "side_asib_cccp")


def commands(name: str) -> list[list[str]]:
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")  # the convention of Hydra's templates
    return [[verb, *shlex.split(words)] for verb, words in COMMAND.findall(text)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_commands_in_the_head_are_accepted(name: str) -> None:
    found = commands(name)
    assert found
    for verb, *words in found:
        assert verb == "distill"
        combinations = expand([word for word in words if word != "-m"])
        assert (len(combinations) > 1) == ("-m" in words)
        assert all(f"experiment={name}" in one for one in combinations)
        compose(list(combinations[0]))
        compose(list(combinations[-1]))


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=ablation_ib"],
        ["+experiment=ablation_ib"],
        ["-cn", "experiment/ablation_ib"],
        ["-cn=experiment/ablation_ib"],
        ["--config-name=experiment/ablation_ib"],
    ],
    ids=" ".join,
)
def test_every_spelling_chooses_an_experiment(words: list[str]) -> None:
    config = compose(overrides_of("distill", taken([*words, "+seed=3"])[1]))
    assert (config.cfg, config.bench.name, config.seed) == ("L1", "cifar100", 3)


def test_what_is_given_wins_over_an_experiment() -> None:
    given = ["experiment=asib_stage", "cfg=L1", "bench=digits", "budget=digits", "optim.lr=0.5"]
    config = compose(given)
    assert (config.cfg, config.bench.name, config.optim.lr) == ("L1", "digits", 0.5)
    assert (config.budget.student_epochs, config.student.model) == (40, "resnet8")
    assert (config.method.kd_sample_gate, config.method.token_dim) == (True, 512)
    other = compose(["experiment=asib_stage", "method=dkd"])
    assert (other.rung, other.budget.student_epochs) == ("dkd", 240)
    assert sources(given)["method.kd_sample_thr"] == "conf/method/asib_stage.yaml"


@pytest.mark.parametrize("experiment", ["asib_2025_08", "asib_stage"])
def test_the_rungs_of_a_recipe_share_one_base(experiment: str) -> None:
    """They differ from the recipe's first rung in what the rung differs in, and in nothing else."""

    def differing(*more: str) -> dict[str, set[str]]:
        configs = {rung: compose([f"cfg={rung}", *more]) for rung in RUNGS}
        first = vars(configs["L0"].method)
        return {
            rung: {key for key, value in vars(config.method).items() if value != first[key]}
            for rung, config in configs.items()
        }

    assert differing(f"experiment={experiment}") == differing("bench=cifar100")


def test_the_values_of_asib_2025_08() -> None:
    config = compose(["experiment=asib_2025_08"])
    m, epochs = config.method, 80
    assert (config.budget.student_epochs, m.num_stages, config.budget.adapt_epochs) == (80, 4, 32)
    assert (m.ce_alpha, m.kd_alpha, m.kd_max_ratio, m.label_smoothing) == (0.7, 0.3, 1.25, 0.05)
    assert (m.kd_warmup_epochs * epochs, m.kd_cooldown_epochs, m.kd_ens_alpha) == (10, 0, 0)
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adamw", 1e-3, 3e-4)
    assert (config.optim.warmup_epochs, config.optim.min_lr) == (5, 1e-6)
    assert (config.mix.mixup_alpha, config.mix.cutmix_alpha) == (0.2, 1.0)
    assert [epoch for epoch in range(80) if config.mix.active(epoch, 80)] == [*range(20, 80)]
    assert (m.token_dim, m.latent_dim, m.logvar_clip, m.min_std) == (512, 512, 4, 0.01)
    assert (m.loss_clamp, m.loss_clamp_warmup_epochs, m.dropout) == ("soft", 0, 0.05)
    assert (m.a_step_epochs(32), m.synergy_only_epochs * 8) == ([8, 8, 8, 8], 2)
    assert (m.teacher_eval_every, m.synergy_ema_alpha, m.a_label_smoothing) == (2, 0.8, 0.05)
    assert (m.freeze_bn, m.student_levels) == (True, [-1, -1, 1, 1])


def test_the_values_of_asib_stage() -> None:
    config = compose(["experiment=asib_stage"])
    m = config.method
    assert (config.budget.student_epochs, m.kd_cooldown_epochs * 240) == (240, 60)
    assert (m.kd_sample_gate, m.kd_sample_thr) == (True, 0.85)
    assert (m.kd_sample_max_ratio, m.kd_sample_min_ratio) == (0.5, 0.1)
    assert (m.kd_uncertainty_weight, m.synergy_logit_scale, m.tau_syn) == (0.5, 0.8, 4)
    assert (m.teacher_weights, m.synergy_only_epochs * 8, m.kd_target) == ([0.7, 0.3], 2, "auto")
    assert (config.optim.name, config.optim.lr, config.optim.min_lr) == ("adamw", 1e-3, 1e-6)


def test_the_problems_of_the_original() -> None:
    def problem(config: Config) -> tuple:
        return [t.model for t in config.teachers()], config.student.model, config.optim.batch

    seeds = compose(["experiment=seed_ablation"])
    assert problem(seeds) == (["convnext_s", "resnet152"], "resnet50", 64)
    assert (seeds.optim.name, seeds.optim.lr, seeds.budget.student_epochs) == ("sgd", 0.1, 200)
    large = compose(["experiment=sota_scenario_a"])
    assert problem(large) == (["convnext_l", "efficientnet_l2"], "resnet101", 64)
    for share in (100, 50, 0):
        config = compose([f"experiment=overlap_{share}"])
        assert config.overlap == share
        assert problem(config) == (["resnet152", "resnet152"], "resnet50", 64)
        assert len({t.seed for t in config.teachers()}) == 2
