"""What makes two rungs comparable."""

import pytest

from analysis import tags
from analysis.selection.likeness import facts_by_rung, unlike
from tests.analysis.frames import distill, params, runs

ALIKE = params(
    data__name="digits",
    student__model="resnet8",
    budget__student_epochs=20,
    mix__mixup_alpha=0.2,
    numerics__precision="float32",
    optim__batch=128,
    optim__lr=0.1,
    teacher__0__model="resnet20",
    data__root="/a",
)
TAUGHT = {f"tags.{tags.TEACHERS}": "resnet20", f"tags.{tags.VERSION}": "3"}


def between(one: dict, other: dict) -> tuple[str, ...]:
    kept = runs(
        distill("KD", 0, 0.5, **(ALIKE | TAUGHT | one)),
        distill("L4", 0, 0.5, **(ALIKE | TAUGHT | other)),
    )
    facts = facts_by_rung(kept, "toy")
    return unlike(facts["KD"], facts["L4"])


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("params.data.name", "mnist", "data.name (digits and mnist)"),
        ("params.student.model", "resnet20", "student.model (resnet8 and resnet20)"),
        ("params.budget.student_epochs", "40", "budget.student_epochs (20 and 40)"),
        ("params.mix.mixup_alpha", "0.0", "mix.mixup_alpha (0.2 and 0.0)"),
        ("params.numerics.precision", "bf16", "numerics.precision (float32 and bf16)"),
        ("params.teacher.0.model", "resnet56", "teacher.0.model (resnet20 and resnet56)"),
        (f"tags.{tags.TEACHERS}", "resnet56", "teachers (resnet20 and resnet56)"),
        (f"tags.{tags.VERSION}", "4", "version of the numerics (3 and 4)"),
    ],
)
def test_what_differs_is_named(column: str, value: str, named: str) -> None:
    assert between({}, {column: value}) == (named,)


def test_teachers_are_told_by_their_keys_and_the_rest_by_the_tag_of_the_setting() -> None:
    keys = f"tags.{tags.TEACHER_KEYS}"
    assert between({keys: "aa,bb"}, {keys: "aa,cc"}) == ("teachers (keys) (aa,bb and aa,cc)",)
    setting = f"tags.{tags.SETTING}"
    assert between({setting: "a"}, {setting: "b"}) == ("data, student or budget (tag setting)",)
    longer = {setting: "b", "params.budget.student_epochs": "40"}
    assert between({setting: "a"}, longer) == ("budget.student_epochs (20 and 40)",)


def test_what_may_differ_is_not_named() -> None:
    assert between({}, {"params.optim.lr": "0.2", "params.data.root": "/b"}) == ()
    assert between({}, {"params.data.name": None}) == ()  # a run that does not say
    alone = {f"tags.{tags.TEACHERS}": "", "params.teacher.0.model": "resnet56"}
    assert between(alone, {}) == ()  # it has no teacher
    matched = {f"tags.{tags.MATCHED_TO}": "L4", "params.budget.student_epochs": "64"}
    assert between(matched, {}) == ()
