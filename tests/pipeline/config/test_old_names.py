"""Names of the original framework are answered by the names here."""

from __future__ import annotations

import pytest

from pipeline.cli.environment import with_shortcuts
from pipeline.config import Config, ConfigError, compose
from pipeline.config.fields import leaves
from pipeline.config.groups import GROUPS
from pipeline.config.old_names import OLD_KEYS


def errors_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        compose(list(overrides))
    return raised.value.errors


def test_every_new_name_exists_and_no_old_one_does() -> None:
    known = {key for key, _, _ in leaves(Config)}
    here = {key.here.replace("teacher.1.", "teacher.0.") for key in OLD_KEYS if key.here}
    assert here <= known | {*GROUPS}
    assert not {key.name for key in OLD_KEYS} & known
    assert len({key.name for key in OLD_KEYS}) == len(OLD_KEYS) > 70
    assert all(key.here or key.note for key in OLD_KEYS)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("ib_mbm_out_dim=512", "ib_mbm_out_dim is method.latent_dim here"),
        ("experiment.kd_alpha=0.3", "experiment.kd_alpha is method.kd_alpha here"),
        ("+experiment.schedule.min_lr=1e-6", "experiment.schedule.min_lr is optim.min_lr here"),
        ("num_workers=8", "num_workers: not needed here: images are on the device"),
        ("+method@experiment.method=vanilla_kd", "here method=kd"),
        ("experiment/method@experiment.experiment.method=dkd", "here method=dkd"),
        ("model/teacher@experiment.teacher1=resnet152_cifar32", "here teacher@teacher.0=resnet152"),
        ("model/teacher@experiment.teacher2=convnext_s", "here teacher@teacher.1=convnext_s"),
        ("model/student@experiment.model.student=resnet50_scratch", "here student=resnet50"),
        ("method=vanilla_kd", "the original's vanilla_kd is kd here"),
        ("student=resnet50_scratch", "the original's resnet50_scratch is resnet50 here"),
        ("teacher@teacher.0=convnext_s_cifar32", "convnext_s_cifar32 is convnext_s here"),
        ("experiment=L4_full", "the original's L4_full is ablation_full here"),
        ("student@student=resnet8", "here student=resnet8"),
        ("budget@other=long", "a group is chosen as in budget=long"),
    ],
)
def test_an_old_name_is_answered_by_the_new_one(given: str, answer: str) -> None:
    (error,) = errors_of(given)
    assert answer in error


def test_other_unknown_keys_have_the_nearest_name() -> None:
    assert "did you mean method.ib_beta" in errors_of("method.ib_betta=1")[0]


@pytest.mark.parametrize(
    ("environment", "overrides"),
    [
        ({"METHOD": "vanilla_kd"}, ["method=kd"]),
        ({"METHOD": "asib_stage"}, ["method=asib_stage"]),
        ({"STUDENT": "mobilenet_v2_scratch"}, ["student=mobilenet_v2"]),
        (
            {"TEACHER_PAIR": "convnext_s_cifar32,resnet152_cifar32"},
            ["teacher@teacher.0=convnext_s", "teacher@teacher.1=resnet152"],
        ),
    ],
)
def test_old_names_work_in_the_environment(
    environment: dict[str, str], overrides: list[str]
) -> None:
    assert with_shortcuts([], environment) == overrides
    compose([*overrides, "bench=cifar100"])


def test_the_whole_method_of_asib_stage_goes_by_its_name() -> None:
    config = compose(["method=asib_stage"])
    assert (config.rung, config.method.kd_target, config.method.num_stages) == (
        "asib_stage",
        "auto",
        4,
    )
    assert compose(["method=asib_stage", "cfg=L1"]).method.num_stages == 1
