"""How the configuration of a run differs from its rung's default."""

import pytest

from pipeline.config import compose
from pipeline.stages.variant import variant

DEFAULTS = [
    ["cfg=L3"],
    ["cfg=CE"],
    ["method=dkd"],
    ["cfg=KD", "bench=fashion_mnist"],
    ["cfg=L3", "seed=3", "data.train_limit=100", "student.model=resnet20", "overlap=50"],
    ["bench=digits_all", "cfg=L3", "optim.batch=20", "teacher.1=null", "numerics=bfloat16"],
    ["cfg=L3", "budget=long"],
    ["cfg=CE", "budget=long", "budget.student_epochs=4"],
    ["cfg=KD", "data=fashion_mnist"],
    ["cfg=CE", "method.tau=9"],  # changes nothing in CE
    ["cfg=CE", "bank.logits=3"],
    ["method=kd", "overlap=0"],
]


@pytest.mark.parametrize("words", DEFAULTS, ids=" ".join)
def test_the_default_of_a_rung_has_no_variant_in_any_setting(words: list[str]) -> None:
    assert variant(compose(words)) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cfg=L3", "method.ib_beta=0.01"], "method.ib_beta=0.01"),
        (["method=dkd", "method.tau=2", "optim.lr=0.5"], "method.tau=2.0 optim.lr=0.5"),
        (["cfg=CE", "budget=long", "optim.lr=0.3"], "optim.lr=0.3"),
        (["cfg=L3", "method.teacher_levels=[1,1,2,2]"], "method.teacher_levels=[1,1,2,2]"),
        (["method=kd", "overlap=0", "method.teacher=best"], "method.teacher=best"),
        (["cfg=KD", "bank.logits=3"], "bank.logits=3"),
        (
            ["cfg=L3", "bench.enable_kd_after_syn_acc=0"],
            "method.enable_kd_after_syn_acc=0.0",
        ),
    ],
)
def test_a_variant_lists_what_differs_as_overrides(words: list[str], expected: str) -> None:
    assert variant(compose(words)) == expected
