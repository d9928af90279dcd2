"""A real tracking server that goes away in the middle of a run and comes back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.runs import load_runs
from tests.end_to_end import command
from tests.end_to_end.server import Server
from trainers import metrics


@pytest.mark.thorough
def test_server_vanishes_and_nothing_is_lost_or_doubled(
    finished: Path, with_teachers: Path, server: Server
) -> None:
    impatient = ("runtime.sync_timeout_s=0.5", "runtime.retry_s=0.5")
    child = command.Command(
        "distill", *command.L3, *impatient, cwd=with_teachers, MLFLOW_TRACKING_URI=server.uri
    )
    assert child.wait_for("2/8 1A")
    server.stop()
    code, output = child.end()
    assert code == 0, output
    assert "python -m pipeline sync" in output
    assert command.student_digest(with_teachers) == command.student_digest(finished)
    server.start()
    env = {"MLFLOW_TRACKING_URI": server.uri}
    output = command.run("sync", "runtime.log_model=false", cwd=with_teachers, **env)
    assert "sent     distill" in output
    assert "synced   0 runs" in command.run("sync", cwd=with_teachers, **env)
    _complete_and_single(server.uri, with_teachers)


@pytest.mark.thorough
def test_what_was_trained_while_the_server_was_away_comes_under_its_own_launch(
    with_teachers: Path, server: Server
) -> None:
    server.stop()
    env = {"MLFLOW_TRACKING_URI": server.uri}
    impatient = ("runtime.sync_timeout_s=0.5", "runtime.retry_s=0.5")
    output = command.run("distill", "cfg=CE", *command.TINY, *impatient, cwd=with_teachers, **env)
    assert "python -m pipeline sync" in output
    assert "Retrying" not in output
    server.start()
    command.run("sync", "runtime.log_model=false", cwd=with_teachers, **env)
    runs = load_runs(server.uri, "asib").set_index("name")
    student = runs.loc["distill-CE-digits_all-s0"]
    assert student["parent_id"] == runs.loc["launch-distill"].run_id
    assert "launch-sync" not in runs.index


def _complete_and_single(uri: str, folder: Path) -> None:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("asib")
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'distill'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    (result,) = command.results(folder).values()
    for entry_metric in (metrics.LOSS_TOTAL, metrics.VAL_TOP1, metrics.EPOCH_SECONDS):
        steps = [m.step for m in client.get_metric_history(runs[0].info.run_id, entry_metric)]
        expected = [e["index"] for e in result["history"] if entry_metric in e["metrics"]]
        assert Counter(steps) == Counter(expected)
    assert len(client.get_metric_history(runs[0].info.run_id, metrics.TEST_TOP1)) == 1
