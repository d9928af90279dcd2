"""Filters of an analysis."""

import pytest

from analysis.selection.filters import RunFilter, chosen
from tests.analysis.frames import distill, runs


@pytest.mark.parametrize("name", ["variant", "recipe"])
def test_a_chosen_configuration_keeps_its_teachers(name):
    teacher = distill("t", 0) | {"tags.stage": "finetune"}
    students = [distill("L2", 0, 0.5) | {f"tags.{name}": value} for value in ("a=1", "")]
    kept = chosen(runs(teacher, *students), RunFilter(tags={name: "a=1"}))
    assert kept["run_id"].tolist() == ["r0", "r1"]
