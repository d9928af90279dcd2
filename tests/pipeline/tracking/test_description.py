"""What a run says of itself in the tracking UI."""

from dataclasses import replace

from analysis import tags
from pipeline.tracking.description import again, description
from tests.pipeline import records
from trainers import metrics

SPEC = records.spec(
    tags={
        tags.STAGE: "distill",
        tags.STUDENT: "resnet8",
        tags.TEACHERS: "a,b",
        tags.BENCH: "digits",
        tags.SEED: "3",
        tags.RUN_KEY: "abc",
    },
    params={"cfg": "CE", "seed": "3", "overrides": "cfg=L3 data.train_limit=200"},
)
RESULT = records.result(
    metrics={
        metrics.TEST_TOP1: 0.5,
        metrics.BEST_VAL_TOP1: 0.61234,
        metrics.RUN_SECONDS: 12.0,
        metrics.A_STEP_SECONDS: 0.0,
        metrics.B_STEP_SECONDS: 11.6,
    }
)


def test_numbers_come_first_then_the_key_and_the_command():
    assert description(SPEC, RESULT).split("\n\n") == [
        "test top-1 **50.00 %**; validation top-1 **61.23 %**; 12 s (B-Steps 12 s)",
        "student `resnet8`, teachers `a,b`, bench `digits`, seed 3",
        "Key `abc`. Again: `python -m pipeline distill data.train_limit=200 cfg=CE seed=3`",
    ]


def test_a_value_that_is_missing_is_left_out():
    values = {k: v for k, v in RESULT.metrics.items() if k != metrics.BEST_VAL_TOP1}
    assert "validation" not in description(SPEC, replace(RESULT, metrics=values))


def test_a_teachers_command_asks_for_no_rung():
    spec = replace(SPEC, tags=SPEC.tags | {tags.STAGE: "finetune"})
    assert again(spec) == "python -m pipeline finetune data.train_limit=200"
    assert "teacher `a,b`" in description(spec, RESULT)
