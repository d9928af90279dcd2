"""What a run says of itself in the tracking UI."""

from pipeline import names
from pipeline.describe import again, description

SPEC = {
    "tags": {
        names.STAGE: "distill", names.STUDENT: "resnet8", names.TEACHERS: "a,b",
        names.BENCH: "digits", names.SEED: "3", names.RUN_KEY: "abc",
    },
    "params": {"cfg": "CE", "seed": "3", "overrides": "cfg=L3 data.train_limit=200"},
}  # fmt: skip
RESULT = {
    "metrics": {
        names.TEST_TOP1: 0.5, names.BEST_VAL_TOP1: 0.61234, names.RUN_SECONDS: 12.0,
        names.A_STEP_SECONDS: 0.0, names.B_STEP_SECONDS: 11.6,
    }
}  # fmt: skip


def test_numbers_come_first_then_the_key_and_the_command():
    assert description(SPEC, RESULT).split("\n\n") == [
        "test top-1 **50.00 %**; validation top-1 **61.23 %**; 12 s (B-Steps 12 s)",
        "student `resnet8`, teachers `a,b`, bench `digits`, seed 3",
        "Key `abc`. Again: `python -m pipeline distill data.train_limit=200 cfg=CE seed=3`",
    ]


def test_a_value_that_is_missing_is_left_out():
    metrics = {k: v for k, v in RESULT["metrics"].items() if k != names.BEST_VAL_TOP1}
    assert "validation" not in description(SPEC, {"metrics": metrics})


def test_a_teachers_command_asks_for_no_rung():
    tags = SPEC["tags"] | {names.STAGE: "finetune"}
    spec = {"tags": tags, "params": SPEC["params"]}
    assert again(spec) == "python -m pipeline finetune data.train_limit=200"
    assert "teacher `a,b`" in description(spec, RESULT)
