"""`mlflow run` with its launch run, read back through analysis."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_runs
from tests.end_to_end import command
from trainers import metrics

ROOT = Path(__file__).resolve().parents[2]


def _mlflow_run(
    project: Path,
    entry: str,
    *parameters: str,
    experiment: str | None = "asib/ladder",
    address: str = ".",
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    flags = [flag for parameter in parameters for flag in ("-P", parameter)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "mlflow",
            "run",
            address,
            "-e",
            entry,
            "--env-manager",
            "local",
            *([] if experiment is None else ["--experiment-name", experiment]),
            *flags,
        ],
        cwd=project,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.thorough
def test_a_project_from_an_archive_is_reused_by_the_next_command(
    schema: Path, tmp_path: Path
) -> None:
    ignore = shutil.ignore_patterns(".*", "store", "mlruns", "mlflow.db", "tests", "docs")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignore)
    archive = shutil.make_archive(str(tmp_path / "project"), "zip", tmp_path / "copy")
    shutil.copy(schema, tmp_path)
    where = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/{schema.name}"}
    where |= {"XDG_DATA_HOME": str(tmp_path / "data"), "TMPDIR": str(tmp_path)}
    parameters = ["cfg=CE", "budget.student_epochs=1", "data.train_limit=100"]
    for expected in ("finished distill-CE", "reused   distill-CE"):
        done = _mlflow_run(tmp_path, "distill", *parameters, address=archive, **where)
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout
        assert f"runtime.store={tmp_path}/data/asib/store" in done.stdout
    assert len(list((tmp_path / "data" / "asib" / "store" / "runs" / "distill").iterdir())) == 1


@pytest.mark.thorough
def test_distill_by_mlflow_run_with_declared_and_undeclared_parameters(
    schema: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    ignore = shutil.ignore_patterns(".git", ".venv", "store", "mlruns", "mlflow.db", "tests")
    shutil.copytree(ROOT, project, ignore=ignore)
    shutil.copy(schema, project)
    parameters = ["cfg=KD", "seed=1", "method.kd_alpha=0.5", "runtime.log_model=true"]
    parameters += [o for o in command.TINY if not o.startswith(("bench.", "runtime.log_model"))]
    done = _mlflow_run(project, "distill", *parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = load_runs(f"sqlite:///{project}/mlflow.db", "asib/ladder").set_index("name")
    student = runs.loc["distill-KD-digits_all-s1"]
    assert student["params.method.kd_alpha"] == "0.5"
    assert student[f"metrics.{metrics.TEST_READS}"] == 1
    launches = [run_id for run_id in runs.run_id if run_id == student["parent_id"]]
    assert len(launches) == 1  # the project run that `mlflow run` opened, in the same experiment
    assert set(runs[runs[f"tags.{tags.STAGE}"] == "finetune"]["parent_id"]) == set(launches)
    _model_predicts(project)
    again = _mlflow_run(
        project, "distill", *parameters, "runtime.register=students", experiment=None
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "reused   distill-KD-digits_all-s1" in again.stdout + again.stderr
    own = load_runs(f"sqlite:///{project}/mlflow.db", "asib").set_index("name")
    assert own.loc["distill-KD-digits_all-s1"].parent_id == own.loc["launch-distill"].run_id
    _model_is_served(project)


@pytest.mark.thorough
def test_a_multirun_by_mlflow_run(schema: Path, tmp_path: Path) -> None:
    """Values with commas and brackets, a name with a slash, a switch: as with python -m."""
    project = tmp_path / "project"
    ignore = shutil.ignore_patterns(".git", ".venv", "store", "mlruns", "mlflow.db", "tests")
    shutil.copytree(ROOT, project, ignore=ignore)
    shutil.copy(schema, project)
    tiny = [o for o in command.TINY if not o.startswith(("bench.", "teacher."))]
    parameters = ["cfg=CE,CE", "seed=range(0,2)", *tiny]
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.jobs_parallel=2"]
    done = _mlflow_run(project, "distill", *parameters, *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = load_runs(f"sqlite:///{project}/mlflow.db", "asib/ladder")
    students = runs[runs[f"tags.{tags.STAGE}"] == "distill"]
    assert sorted(students["name"]) == ["distill-CE-digits_all-s0", "distill-CE-digits_all-s1"]
    assert len(set(students["parent_id"])) == 1
    again = _mlflow_run(project, "distill", *parameters, "multirun=true", "dry-run=true")
    assert "2 finished, 0 to run" in again.stdout


def _model_is_served(project: Path) -> None:
    """By the commands of docs/mlflow.md."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "-m", "models:/students@current", "--env-manager", "local"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words, "--port", str(port)],
        cwd=project,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    body = json.dumps({"inputs": [[[[0.0] * 16] * 16]] * 3}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
    )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                answer = json.load(urllib.request.urlopen(request, timeout=30))
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.5)
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    assert [len(logits) for logits in answer["predictions"]] == [10] * 3


def _model_predicts(project: Path) -> None:
    """The logged model takes pixels of any number of images and gives logits."""
    import mlflow.pyfunc
    import numpy as np

    (model,) = (project / "mlruns").glob("*/models/*/artifacts")
    loaded = mlflow.pyfunc.load_model(str(model))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 1, 16, 16)).astype("float32")
    assert loaded.predict(pixels).shape == (3, 10)


@pytest.mark.thorough
def test_an_error_in_the_options_runs_nothing(tmp_path: Path, schema: Path) -> None:
    project = tmp_path / "project"
    ignore = shutil.ignore_patterns(".git", ".venv", "store", "mlruns", "mlflow.db", "tests")
    shutil.copytree(ROOT, project, ignore=ignore)
    shutil.copy(schema, project)
    done = _mlflow_run(project, "distill", "cfg=L3; touch x")
    assert done.returncode != 0
    assert "cfg=L3; touch x: unknown" in done.stdout + done.stderr
    assert not (project / "x").exists()
    assert not (project / "store" / "runs").exists()
