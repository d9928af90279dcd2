"""Many runs with one command on this machine: a multirun with failures, a study that is stopped,
resumed with more trials and sent again to a new tracking store."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis import tags
from analysis.correctness import unpacked
from pipeline.config import compose
from pipeline.launch.base import NOT_RUN
from pipeline.session import Session
from sweeps import study_file
from sweeps.run_study import in_experiment, read
from sweeps.tracking import study_target
from sweeps.worker import work
from tests.end_to_end import command
from trainers import metrics

ROOT = Path(__file__).resolve().parents[2]
L1 = ("cfg=L1", "method.token_dim=16", "method.heads=2", *command.TINY)
SHORT = ("budget.student_epochs=2", "budget.adapt_epochs=2")
TWO = ("hydra/launcher=submitit_local", "hydra.launcher.jobs_parallel=2")


def tracked(cwd: Path, experiment: str) -> dict[str, Run]:
    """All runs of an experiment by id."""
    client = MlflowClient(tracking_uri=f"sqlite:///{cwd}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.info.run_id: run for run in client.search_runs([found.experiment_id])}


def of_stage(runs: dict[str, Run], stage: str) -> list[Run]:
    return [run for run in runs.values() if run.data.tags.get(tags.STAGE) == stage]


def parents(runs: list[Run]) -> set[str]:
    return {run.data.tags[tags.PARENT] for run in runs}


@pytest.mark.thorough
def test_a_multirun_with_failures(clean: Path) -> None:
    """Absent teachers are trained once, every student is a child of the one launch; a failed job
    fails alone; the second call reuses finished runs."""
    small = ("method.token_dim=16", "method.heads=2", *command.TINY, *SHORT)
    whole, broken = f"optim.lr={compose([]).optim.lr}", 1e38  # no finite loss after a step
    sweep = ("-m", "cfg=CE,L1", f"{whole},{broken}", *TWO, *small)
    output = command.run("distill", *sweep, cwd=clean, code=1)
    assert output.count("finished  finetune") == output.count("finished  bank") == 2
    assert len(command.results(clean)) == 2
    assert "2 of 8 jobs failed" in output
    runs = tracked(clean, "asib")
    (launch,) = of_stage(runs, "launch")
    students = of_stage(runs, "distill")
    assert parents([*students, *of_stage(runs, "finetune")]) == {launch.info.run_id}
    assert sorted(run.info.status for run in students) == ["FAILED"] * 2 + ["FINISHED"] * 2
    assert launch.info.status == "FAILED"
    output = command.run("distill", "-m", "cfg=CE,L1", whole, *small, cwd=clean)
    assert output.count("reused   distill") == 2
    assert len(of_stage(tracked(clean, "asib"), "distill")) == 4


ONE_BANK_FAILS = """
from pipeline.stages import view_bank

outputs = view_bank.view_outputs


def failing(*arguments, **options):
    try:
        open("failed", "x").close()  # the first bank of all processes
    except FileExistsError:
        return outputs(*arguments, **options)
    raise RuntimeError("planted")


view_bank.view_outputs = failing
"""


@pytest.mark.thorough
def test_students_of_a_bank_that_fails_are_not_run(with_teachers: Path) -> None:
    """They end at once with the reason; a control without teachers is run."""
    shutil.rmtree(with_teachers / "store/runs/bank")
    (with_teachers / "one_bank_fails.py").write_text(ONE_BANK_FAILS)
    sweep = ("-m", "cfg=CE,KD", *TWO, *command.TINY)
    output = command.run("distill", *sweep, cwd=with_teachers, code=1, ASIB_EXTEND="one_bank_fails")
    assert "2 of 4 jobs failed" in output
    assert re.search(rf"failed +distill-KD-digits_all-s0 +{NOT_RUN}", output)
    assert [
        r["metrics"][metrics.BANK_SECONDS] for r in command.results(with_teachers).values()
    ] == [0]
    assert len(list((with_teachers / "store/runs/bank").glob("*/bank.json"))) == 1


@pytest.mark.thorough
def test_a_stopped_grid_resumes_and_is_reused(with_teachers: Path, schema: Path) -> None:
    """Ctrl-C writes a checkpoint and ends with 75; the same command resumes, with more trials if
    requested; once more it trains nothing, and sends everything to a new tracking store."""
    study = ("beta_grid", "seeds=0,1", "workers=2", *L1)
    driver = command.Command(*study, "trials=1", cwd=with_teachers, program="sweeps")
    _wait_for_epochs(driver, with_teachers)
    assert driver.process.pid is not None
    os.kill(driver.process.pid, signal.SIGINT)
    code, output = driver.end()
    assert code == 75, output
    assert "run the same command to resume" in output
    assert re.search(r"study beta_grid-\w+, trials: 1 stopped, 9 waiting", output)
    runs = tracked(with_teachers, "asib/beta_grid")
    stopped = [*of_stage(runs, "study"), *of_stage(runs, "trial"), *of_stage(runs, "distill")]
    assert {run.info.status for run in stopped} == {"KILLED"}
    study = (*study, "trials=2")
    output = command.run(*study, cwd=with_teachers, program="sweeps")
    assert "trials: 2 finished" in output
    assert "the report:   python -m pipeline analyze experiment=asib/beta_grid what=beta" in output
    assert len(command.results(with_teachers)) == 4
    _complete(with_teachers)
    before = _modified(with_teachers)
    shutil.copy(schema, with_teachers)  # the tracking store is lost
    output = command.run(*study, cwd=with_teachers, program="sweeps")
    assert "worker-" not in output
    assert _modified(with_teachers) == before
    _complete(with_teachers)


@pytest.mark.thorough
def test_a_configuration_may_have_the_time_of_another(
    with_teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial has the run that resulted; the runs that it depends on are kept too."""
    rows = {"L1": ["cfg=L1"], "CE_matched": ["cfg=CE_matched", "budget.matched_to=L1"]}
    monkeypatch.setattr(study_file, "read_study", lambda _: {"sampler": "grid", "rows": rows})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(with_teachers)
    request = read("mine", [*L1[3:]])
    session = Session.open(in_experiment(request.study), "sweep", [])
    trial_store = request.trial_store()
    trial_store.enqueue()
    work(trial_store, 2, session, study_target(trial_store, session.target))
    runs = tracked(with_teachers, "asib/mine")
    students = {run.data.tags[tags.RUNG]: run for run in of_stage(runs, "distill")}
    assert sorted(students) == ["CE", "CE_matched", "L1"]
    of_rows = {t.data.params["row"]: t.data.tags["stage_runs"] for t in of_stage(runs, "trial")}
    assert of_rows == {row: students[row].info.run_id for row in rows}


def _complete(cwd: Path) -> None:
    """Two trials of two seeds, all finished, once, and linked both ways."""
    runs = tracked(cwd, "asib/beta_grid")
    (root,) = of_stage(runs, "study")
    trials = of_stage(runs, "trial")
    assert len(trials) == 2
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert len(of_stage(runs, "distill")) == 4
    assert parents(trials) == {root.info.run_id}
    assert parents(of_stage(runs, "distill")) == {trial.info.run_id for trial in trials}
    for trial in trials:
        assert {"method.ib_beta", "seeds", "study"} <= trial.data.params.keys()
        assert {metrics.BEST_VAL_TOP1, "val/best_top1_sd", metrics.RUN_SECONDS} <= (
            trial.data.metrics.keys()
        )
        stages = [runs[key] for key in trial.data.tags["stage_runs"].split(",")]
        assert [s.data.tags[tags.TRIAL] for s in stages] == [trial.data.tags[tags.TRIAL]] * 2
        values = [s.data.metrics[metrics.BEST_VAL_TOP1] for s in stages]
        assert trial.data.metrics[metrics.BEST_VAL_TOP1] == pytest.approx(sum(values) / 2)


def _wait_for_epochs(driver: command.Command, cwd: Path) -> None:
    """Until a worker is in the middle of a run."""
    while not any("  1/" in path.read_text() for path in cwd.glob("store/studies/*/jobs/*.log")):
        assert driver.process.is_alive(), driver.log.read_text()
        time.sleep(0.01)


def _modified(cwd: Path) -> dict[str, int]:
    results = (cwd / "store" / "runs" / "distill").glob("*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in results}


@pytest.mark.thorough
def test_ctrl_c_while_the_server_of_jobs_starts(clean: Path) -> None:
    """A terminal signals every process of a command, also the server before its first line ran."""
    sweep = ("pipeline", "distill", "-m", "cfg=CE", "seed=0,1", *command.TINY, TWO[0])
    process = subprocess.Popen(
        [sys.executable, "-m", *sweep],
        cwd=clean,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    end = time.monotonic() + 120
    while not _server_of(process.pid):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert command.results(clean) == {}


def _server_of(pid: int) -> bool:
    """Whether a command has begun to start its server of jobs."""
    try:
        lines = [" ".join(one.cmdline()) for one in psutil.Process(pid).children()]
    except psutil.Error:
        return False
    return any("multiprocessing.forkserver" in line for line in lines)


@pytest.mark.thorough
def test_the_study_of_overlap_has_the_report_that_it_names(clean: Path) -> None:
    """From the study to the report: full teachers are a column, CE is one line, nothing is missing,
    and every student has its record of the test images, its teachers and their version."""
    given = ("seeds=0", "overlap=0,100", "cfg=CE,KD", *command.TINY)
    output = command.run("overlap", *given, cwd=clean, program="sweeps")
    assert "the report:   python -m pipeline analyze experiment=asib/overlap what=overlap" in output
    printed = command.run("analyze", "experiment=asib/overlap", "what=overlap", cwd=clean)
    rows = [line.split()[:3] for line in printed.splitlines() if line.startswith(("CE ", "KD "))]
    assert rows == [["CE", "all", "1"], ["KD", "0", "1"], ["KD", "100", "1"]]
    assert "Missing" not in printed
    students = of_stage(tracked(clean, "asib/overlap"), "distill")
    assert len(students) == 3
    for run in students:
        record = unpacked(run.data.tags)
        assert record is not None
        assert abs(record.mean() - run.data.metrics[metrics.TEST_TOP1]) < 1e-6
        assert bool(run.data.tags[tags.TEACHER_KEYS]) == (run.data.tags[tags.RUNG] == "KD")
        assert run.data.tags[tags.VERSION].isdecimal()
