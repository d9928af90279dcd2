"""Freezing levels follow the number of stages."""

from __future__ import annotations

import pytest

from pipeline.config import compose
from pipeline.identity import run_key
from trainers.methods.asib.levels import of_stages

HALVES = [0.0, 0.5]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (2, [-1, 1]),
        (3, [-1, -1, 1]),
        (4, [-1, -1, 1, 1]),
        (5, [-1, -1, -1, 1, 1]),
        (8, [-1] * 4 + [1] * 4),
    ],
)
def test_a_progression_follows_the_stages(stages: int, expected: list[int]) -> None:
    assert of_stages([-1, 1], HALVES, stages) == expected


def test_three_levels_begin_at_their_fractions() -> None:
    assert of_stages([-1, 2, 1], [0.0, 0.25, 0.75], 8) == [-1, -1, 2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([1], [1]),
        ([1, 1, 1, 1], [1]),
        ([-1, 2, 2, 1], [-1, 2, 2, 1]),
        ([-1, 1, 1], None),
        ([], None),
    ],
)
def test_a_list_has_one_level_for_all_stages_or_one_for_each(
    levels: list[int], expected: list[int] | None
) -> None:
    assert of_stages(levels, None, 4) == expected
    assert of_stages(levels, HALVES, 4) == expected


@pytest.mark.parametrize("stages", [2, 3, 4, 6])
def test_l4_freezes_with_any_number_of_stages(stages: int) -> None:
    given = [f"method.num_stages={stages}", "method.synergy_only_epochs=0"]
    method = compose(["cfg=L4", *given]).method
    assert len(method.student_levels) == len(method.teacher_levels) == stages
    assert method.student_levels[0] == -1
    assert method.student_levels[-1] == 1
    keys = {run_key("distill", compose([f"cfg={rung}", *given])) for rung in ("L3", "L4")}
    assert len(keys) == 2


def test_a_progression_written_out_is_the_same_experiment() -> None:
    listed = ["method.student_levels=[-1,-1,1,1]", "method.teacher_levels=[1,1,0,0]"]
    assert run_key("distill", compose(["cfg=L4", *listed])) == run_key(
        "distill", compose(["cfg=L4"])
    )
    constant = compose(["cfg=L3", "method.teacher_levels=[1,1,1,1]"])
    assert run_key("distill", constant) == run_key("distill", compose(["cfg=L3"]))
