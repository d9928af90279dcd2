"""Many runs with one command on this machine: a multirun, a grid and a drawn study by two
workers, a worker that is killed, and second calls that reuse all."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import names
from pipeline.config import compose
from tests.end_to_end import command

pytestmark = pytest.mark.xdist_group("sweeps")

L1 = ("cfg=L1", "method.token_dim=16", "method.heads=2", *command.TINY)
BROKEN_LR = 1e38  # the loss is not finite after a step
TWO = ("hydra/launcher=local", "hydra.launcher.jobs_parallel=2")


def tracked(cwd: Path, experiment: str) -> dict[str, Run]:
    """All runs of an experiment by id."""
    client = MlflowClient(tracking_uri=f"sqlite:///{cwd}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.info.run_id: run for run in client.search_runs([found.experiment_id])}


def of_stage(runs: dict[str, Run], stage: str) -> list[Run]:
    return [run for run in runs.values() if run.data.tags.get(names.STAGE) == stage]


def parents(runs: list[Run]) -> set[str]:
    return {run.data.tags[names.PARENT] for run in runs}


def test_a_ladder_with_one_command(clean: Path) -> None:
    """Absent teachers once, every student a child of the one launch. Later a job that fails takes
    nobody with it, and what is there is reused."""
    small = ("method.token_dim=16", "method.heads=2", *command.TINY)
    output = command.run("distill", "-m", "cfg=CE,L1", "seed=0,1", *TWO, *small, cwd=clean)
    assert output.count("finished  finetune") == 2
    assert len(command.results(clean)) == 4
    runs = tracked(clean, "asib")
    (launch,) = of_stage(runs, "launch")
    students = of_stage(runs, "distill")
    assert parents([*students, *of_stage(runs, "finetune")]) == {launch.info.run_id}
    assert {run.info.status for run in [launch, *students]} == {"FINISHED"}

    swept = ("cfg=CE", f"optim.lr={compose([]).optim.lr},{BROKEN_LR}", *TWO, *small)
    output = command.run("distill", *swept, cwd=clean, code=1)
    assert output.count("reused   distill-CE") == 1
    assert re.search(r"distill-CE-digits-s0-\w+ .* failed", output)
    assert "1 of 1 jobs failed" in output
    statuses = [run.info.status for run in of_stage(tracked(clean, "asib"), "distill")]
    assert sorted(statuses) == ["FAILED", *["FINISHED"] * 4]


def test_a_grid_by_two_workers_and_again(with_teachers: Path) -> None:
    study = ("beta_grid", "seeds=0,1", "workers=2", "trials=2", *L1)
    output = command.run(*study, cwd=with_teachers, program="sweeps")
    assert "2 finished" in output
    assert len(command.results(with_teachers)) == 4
    runs = tracked(with_teachers, "asib/beta_grid")
    (root,) = of_stage(runs, "study")
    trials = of_stage(runs, "trial")
    assert parents(trials) == {root.info.run_id}
    assert parents(of_stage(runs, "distill")) == {trial.info.run_id for trial in trials}
    for trial in trials:
        assert {"method.ib_beta", "seeds", "study"} <= trial.data.params.keys()
        assert {names.BEST_VAL_TOP1, "val/best_top1_sd", names.RUN_SECONDS} <= (
            trial.data.metrics.keys()
        )
        stages = [runs[key] for key in trial.data.tags["stage_runs"].split(",")]
        assert [s.data.tags[names.TRIAL] for s in stages] == [trial.data.tags[names.TRIAL]] * 2
        values = [s.data.metrics[names.BEST_VAL_TOP1] for s in stages]
        assert trial.data.metrics[names.BEST_VAL_TOP1] == pytest.approx(sum(values) / 2)
    before = _modified(with_teachers)
    output = command.run(*study, cwd=with_teachers, program="sweeps")
    assert "worker" not in output.replace("workers", "")
    assert _modified(with_teachers) == before
    assert len(tracked(with_teachers, "asib/beta_grid")) == len(runs)


def _modified(cwd: Path) -> dict[str, int]:
    results = (cwd / "store" / "runs" / "distill").glob("*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in results}


def test_a_killed_worker_of_a_drawn_study(with_teachers: Path) -> None:
    """Its trial is taken up again as the same trial; the count is exact, and more trials later
    go on from there."""
    study = ("beta", "seeds=0", "workers=2", *L1)
    driver = command.Command(*study, "trials=3", cwd=with_teachers, program="sweeps")
    assert driver.wait_for("running   trial fixed-0"), driver.log.read_text()
    pid = re.findall(r"worker-0  process (\d+)", driver.log.read_text())[-1]
    os.kill(int(pid), signal.SIGKILL)
    code, output = driver.end()
    assert code == 0, output
    assert "killed by signal 9, started again" in output
    assert "3 finished" in output
    assert "taken up again" in "".join(
        path.read_text() for path in with_teachers.glob("store/studies/*/jobs/worker-*.log")
    )
    assert len(command.results(with_teachers)) == 3
    output = command.run(*study, "trials=4", cwd=with_teachers, program="sweeps")
    assert "4 finished" in output
    runs = tracked(with_teachers, "asib/beta")
    trials = of_stage(runs, "trial")
    assert sorted(t.data.tags[names.TRIAL] for t in trials) == ["0", "1", "2", "fixed-0"]
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    assert len(of_stage(runs, "study")) == 1


def test_ctrl_c_commits_and_the_same_command_goes_on(with_teachers: Path) -> None:
    study = ("beta_grid", "seeds=0", "workers=1", "trials=1", *L1)
    driver = command.Command(*study, cwd=with_teachers, program="sweeps")
    log = with_teachers / "store"
    assert driver.wait_for("running   worker-0")
    while not any("1/" in path.read_text() for path in log.glob("studies/*/jobs/worker-0.log")):
        assert driver.process.is_alive(), driver.log.read_text()
        time.sleep(0.01)
    assert driver.process.pid is not None
    os.kill(driver.process.pid, signal.SIGINT)
    code, output = driver.end()
    assert code == 75, output
    assert "the same command goes on" in output
    output = command.run(*study, cwd=with_teachers, program="sweeps")
    assert "1 finished" in output
    (result,) = command.results(with_teachers).values()
    assert json.dumps(result["metrics"])
