"""The verb `evaluate` on a finished student: by key, by run id, from artifacts, by file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis import tags
from analysis.runs import load_runs, select
from tests.end_to_end import command
from trainers import metrics

STUDENT = "distill-L3-digits_all-s0"


@pytest.fixture
def folder(finished: Path, clean: Path) -> Path:
    """A folder with the store of a finished student that this tracking store has not seen."""
    shutil.copytree(finished / "store", clean / "store")
    return clean


def _runs(folder: Path) -> pd.DataFrame:
    return load_runs(f"sqlite:///{folder}/mlflow.db", "asib").set_index("name")


@pytest.mark.thorough
def test_by_key_by_run_id_and_by_file(folder: Path) -> None:
    ((key, result),) = command.results(folder).items()
    output = command.run("evaluate", f"run={key[:6]}", "split=test", cwd=folder)
    tables = output[output.index("measure") : output.index("logged")]
    assert max(map(len, tables.splitlines())) <= 100
    assert f"{100 * result['metrics'][metrics.TEST_TOP1]:.2f}" in tables
    _is_a_child_with_all_measures(folder, result)

    run_id = _runs(folder).loc[STUDENT].run_id
    command.run("evaluate", f"run={run_id}", cwd=folder)  # split=val
    _val_costs_no_reading(folder, result)

    (folder / "store" / "runs").rename(folder / "aside")
    output = command.run("evaluate", f"run={run_id}", "split=test", cwd=folder)
    assert "Teacher 0" in output
    assert "not in the store" in output
    shutil.rmtree(folder / "store" / "runs")
    (folder / "aside").rename(folder / "store" / "runs")
    from_artifacts = _runs(folder).loc[f"evaluate-test-{STUDENT}"].iloc[-1]
    assert from_artifacts["metrics.eval/nll"] == result["metrics"][metrics.TEST_NLL]
    assert from_artifacts[f"metrics.{metrics.TEST_READS}"] == 3

    weights = next((folder / "store/runs/distill").glob("*/student.*.safetensors"))
    shutil.copy(weights, folder / "my student, final.safetensors")
    file = "run=my student, final.safetensors"
    command.run("evaluate", file, "split=test", "cfg=CE", cwd=folder)
    by_file = _runs(folder).loc["evaluate-test-my student, final"]
    assert by_file["metrics.eval/nll"] == result["metrics"][metrics.TEST_NLL]
    assert by_file[f"metrics.{metrics.TEST_READS}"] == 3  # 1 and 2 in this store, of these weights
    assert by_file["parent_id"] == _runs(folder).loc["launch-evaluate"].run_id.iloc[-1]

    counted = select(load_runs(f"sqlite:///{folder}/mlflow.db", "asib"), stage="distill")
    assert counted.kept["name"].tolist() == [STUDENT]
    assert counted.left_out.empty


def _is_a_child_with_all_measures(folder: Path, result: dict) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    student, found = _runs(folder).loc[STUDENT], _runs(folder).loc[f"evaluate-test-{STUDENT}"]
    assert (found["parent_id"], found["status"]) == (student.run_id, "FINISHED")
    assert found[f"tags.{tags.STAGE}"] == "evaluate"
    logged = {k.removeprefix("metrics.") for k in found.dropna().index if k.startswith("metrics.")}
    numbers = {
        "top1",
        "top5",
        "nll",
        "ece",
        "images",
        "parameters",
        "macs",
        "images_per_second",
        *(f"teacher{k}/{what}" for k in (0, 1) for what in ("agreement", "kl")),
    }
    assert logged == {f"eval/{what}" for what in numbers} | {metrics.TEST_READS}
    for what in ("top1", "top5", "nll", "ece"):
        assert found[f"metrics.eval/{what}"] == result["metrics"][f"test/{what}"]
    assert student[f"metrics.{metrics.TEST_READS}"] == found[f"metrics.{metrics.TEST_READS}"] == 2
    assert len(client.get_metric_history(student.run_id, metrics.TEST_TOP1)) == 1
    files = {file.path for file in client.list_artifacts(found.run_id)}
    assert files == {
        "report.txt",
        "evaluation.json",
        "per_class.csv",
        "confusion.csv",
        "confusion.png",
    }
    body = json.loads(
        Path(client.download_artifacts(found.run_id, "evaluation.json", str(folder))).read_text()
    )
    diagonal = sum(body["confusion"][c][c] for c in range(10))
    assert diagonal / body["numbers"]["images"] == pytest.approx(body["numbers"]["top1"])


def _val_costs_no_reading(folder: Path, result: dict) -> None:
    runs = _runs(folder)
    found = runs.loc[f"evaluate-val-{STUDENT}"]
    assert found["metrics.eval/top1"] == result["metrics"][metrics.BEST_VAL_TOP1]
    assert metrics.TEST_READS not in {k.removeprefix("metrics.") for k in found.dropna().index}
    assert runs.loc[STUDENT][f"metrics.{metrics.TEST_READS}"] == 2


@pytest.mark.thorough
def test_a_teacher_is_evaluated_and_its_count_goes_along_to_another_experiment(
    folder: Path,
) -> None:
    key, result = next(iter(command.results(folder, "finetune").items()))
    command.run("evaluate", f"run={key}", "split=test", cwd=folder)
    there = "runtime.experiment=elsewhere"
    command.run("evaluate", f"run={key}", "split=train", there, cwd=folder)
    runs = load_runs(f"sqlite:///{folder}/mlflow.db", "elsewhere")
    teacher = runs[runs[f"tags.{tags.STAGE}"] == "finetune"].iloc[0]
    assert teacher[f"metrics.{metrics.TEST_READS}"] == 2
    assert teacher[f"metrics.{metrics.TEST_TOP1}"] == result["metrics"][metrics.TEST_TOP1]
    found = runs[runs[f"tags.{tags.STAGE}"] == "evaluate"].iloc[0]
    assert found["metrics.eval/images"] == 200


def test_an_error_logs_nothing_and_reads_nothing(folder: Path) -> None:
    (key,) = command.results(folder)
    wrong = {
        (f"run={key}", "data=fashion_mnist"): "does not fit",
        (f"run={'0' * 32}",): "no such run",
        ("run=0000",): "no run of this id, key, name or rung",
        ("run=gone.pt",): "gone.pt: no such file",
    }
    for arguments, expected in wrong.items():
        output = command.run("evaluate", "split=test", *arguments, cwd=folder, code=2)
        assert "1 error:" in output
        assert expected in output
        assert "Traceback" not in output
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    assert not client.search_runs(experiments)
    assert not list((folder / "store/runs/distill").glob("*/test-read-000002"))
