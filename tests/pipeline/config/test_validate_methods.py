"""Invalid values of a method's options: one message with option, value and allowed values."""

from __future__ import annotations

import pytest

from pipeline.config import ConfigError, compose

CASES = [
    (["method=dkd", "method.ib_beta=1"], "method.ib_beta: no such option of method dkd"),
    (["cfg=L3", "method.teacher_levels=[]"], "method.teacher_levels=[]: at least one level"),
    (["cfg=L4", "method.student_levels=[]"], "method.student_levels=[]: at least one level"),
    (
        ["cfg=L4", "method.student_levels=[-1,1,1]"],
        "method.student_levels=[-1, 1, 1]: 3 levels for 4 stages (method.num_stages): give one for "
        "every stage, one for each of method.level_starts=[0.0, 0.5], or one for all",
    ),
    (["cfg=L3", "method.teacher_levels=[1,2]"], "every stage, or one for all"),
    (["cfg=L3", "method.level_starts=[0.5,0]"], "fractions that rise from 0 and stay below 1"),
    (["cfg=L3", "method.level_starts=[0,1]"], "fractions that rise from 0 and stay below 1"),
    (
        ["cfg=L4", "method.kd_target=avg"],
        "method.student_levels=[-1, 1] with method.level_starts=[0.0, 0.5]: a level begins in none "
        "of 1 stage (method.num_stages)",
    ),
    (
        ["method=kd", "method.weighting=validation", "data.val_fraction=0", "select=last"],
        "data.val_fraction=0 leaves nothing to choose method.weighting=validation by",
    ),
    (
        ["cfg=stack", "data.val_fraction=0", "select=last"],
        "data.val_fraction=0 leaves nothing to choose method.kd_target=stack by",
    ),
    (
        ["cfg=KD", "bank.logits=10"],
        "bank.logits=10: too many (allowed: all, 1 to 9, fewer than data.classes=10)",
    ),
    (["cfg=stack", "data.views=0"], "method.kd_target=stack is fitted to fixed views"),
    (
        ["bench=digits_all", "cfg=stack", "method.placebo=teachers"],
        "method.kd_target=stack reads features, not logits",
    ),
    (["method=kd", "method.teacher=worst"], "not auto, best, avg or the number of a teacher"),
    (["cfg=L3", "method.teacher_levels=[-5]"], "method.teacher_levels=-5: must be >= -1"),
    (
        ["cfg=KD_null", "data.train_limit=50", "data.unlabelled=all"],
        "method.placebo=teachers needs the label of every image, and data.unlabelled=all gives",
    ),
    (
        ["cfg=L2_null_class", "data.train_limit=50", "data.unlabelled=9"],
        "method.placebo=class needs the label of every image, and data.unlabelled=9 gives",
    ),
    (["data.unlabelled=-3"], "data.unlabelled=-3: must be >= 0"),
    (["data.unlabelled=al"], "did you mean all? (allowed: all, a number >= 0)"),
    (["data.unlabelled=1.5"], "data.unlabelled=1.5: unknown"),
    (["method.teacher_weights=[2,-1]"], "method.teacher_weights=-1.0: must be >= 0"),
    (["method.synergy_eval_teacher_indices=[]"], "[]: at least one teacher, none twice"),
    (["method.synergy_eval_teacher_indices=[0,0]"], "[0, 0]: at least one teacher, none twice"),
    (["method.min_std=100"], "method.min_std=100 is above the largest standard deviation"),
    (["method.loss_clamp_max=0"], "method.loss_clamp_max=0.0: must be >= 1e-06"),
    (["method.synergy_temp_init=1000"], "method.synergy_temp_init=1000.0: must be in -9 … 9"),
    (["method=kd", "method.ce_weight=0", "method.weight=0"], "the student learns from nothing"),
    (["cfg=CE", "method.ce_alpha=0"], "method.ce_alpha=0: the student learns from nothing else"),
]


@pytest.mark.parametrize(("overrides", "sentence"), CASES)
def test_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(overrides)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith("1 error")


@pytest.mark.parametrize(
    "given", ["method.beta=8", "method.negatives=3", "method.weighting=entropy"]
)
def test_an_option_of_another_method_is_not_suggested(given: str) -> None:
    name = given.partition("=")[0]
    with pytest.raises(ConfigError) as raised:
        compose(["cfg=L3", given])
    assert f"{name}: no such option of method asib" in str(raised.value)
    assert f"did you mean {name}" not in str(raised.value)
    assert f"or {name}?" not in str(raised.value)


def test_teachers_are_removed_and_added() -> None:
    assert list(compose(["bench=digits_all", "cfg=L3", "teacher.1=null"]).teacher) == ["0"]
    assert len(compose(["cfg=L3", "teacher@teacher.2=resnet20"]).teacher) == 3
    with pytest.raises(ConfigError, match=r"teacher.1=resnet56: null \(no such teacher\), or"):
        compose(["teacher.1=resnet56"])
    with pytest.raises(ConfigError, match="numbers 1, not 0"):
        compose(["bench=digits_all", "teacher.0=null"])
    with pytest.raises(ConfigError, match="no teacher: add one"):
        compose(["bench=digits_all", "teacher.0=null", "teacher.1=null"])
