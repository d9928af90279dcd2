"""Controls whose teacher is made of the run's own parts: a regression, or its own student."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.runs import load_runs
from tests.end_to_end import command


@pytest.mark.thorough
def test_self_training_runs_its_teacher_first_and_shares_it(with_teachers: Path) -> None:
    tiny = command.TINY
    planned = command.run("distill", "cfg=self", *tiny, cwd=with_teachers, DRY_RUN="1")
    assert re.findall(r"distill-(\S+)-digits_all-s0", planned) == ["CE", "self"]
    output = command.run("distill", "cfg=self", *tiny, cwd=with_teachers)
    assert re.findall(r"finished +distill-(\S+)-digits_all-s0", output) == ["CE", "self"]
    assert "finetune" not in output
    several = command.run("distill", "-m", "cfg=CE,self,stack", *tiny, cwd=with_teachers)
    assert len(re.findall(r"(?m)^distill-(CE|self)-digits_all-s0 .*reused", several)) == 2
    assert re.search(r"(?m)^distill-stack-digits_all-s0 .*finished", several)
    runs = load_runs(f"sqlite:///{with_teachers}/mlflow.db", "asib").set_index("tags.rung")
    assert runs.loc["self", "tags.teachers"] in (None, "")
    assert runs.loc["stack", "tags.teachers"] == "resnet20,resnet20"


@pytest.mark.thorough
def test_jobs_of_self_training_wait_for_their_teacher(with_teachers: Path) -> None:
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.jobs_parallel=2"]
    given = ["cfg=self,CE", *launcher, *command.TINY]
    output = command.run("distill", *given, cwd=with_teachers)
    assert len(re.findall(r"(?m)^distill-(CE|self)-digits_all-s0 .*finished", output)) == 2
    assert len(command.results(with_teachers)) == 2
    runs = load_runs(f"sqlite:///{with_teachers}/mlflow.db", "asib")
    students = runs[runs["tags.stage"].eq("distill")]
    assert set(students["tags.launcher"]) == {" ".join(launcher)}
