"""A study whose workers are killed while the tracking server stops and restarts, against the same
study by one undisturbed worker. Samples depend on the number of a trial, so nothing but the faults
differs: every trial must have the same value and weights."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from analysis import tags
from sweeps.run_study import read
from tests.end_to_end import command
from tests.end_to_end.server import Server
from trainers import metrics

SHORT = (
    *("cfg=L1", "method.token_dim=16", "method.heads=2", *command.TINY),
    *("budget.student_epochs=2", "budget.adapt_epochs=2"),
    *("runtime.sync_timeout_s=0.5", "runtime.retry_s=0.5"),
)


@pytest.mark.parametrize(
    ("trials", "workers"),
    [
        pytest.param(5, 2, marks=pytest.mark.thorough),
        pytest.param(40, 4, marks=pytest.mark.by_hand),
    ],
)
def test_no_trial_is_lost_and_none_counted_twice(
    with_teachers: Path,
    schema: Path,
    tmp_path_factory: pytest.TempPathFactory,
    server: Server,
    trials: int,
    workers: int,
) -> None:
    study = ("sampler=random", "seeds=0", f"trials={trials}", *SHORT)
    calm = tmp_path_factory.mktemp("calm")
    shutil.copy(schema, calm)
    command.copy_teachers(with_teachers, calm)
    command.run("work", "beta", *study, cwd=calm, program="sweeps")
    _each_has_its_run(f"sqlite:///{calm}/mlflow.db", _trials(calm, study))

    env = {"MLFLOW_TRACKING_URI": server.uri}
    driver = command.Command(
        "beta", *study, f"workers={workers}", cwd=with_teachers, program="sweeps", **env
    )
    killed = _disturb(driver, with_teachers, server, trials)
    code, output = driver.end()
    assert code == 0, output
    assert killed >= trials // 4, output
    assert f"{trials} finished" in output
    # If the server came back after the last trial, this call sends what had not arrived.
    again = command.run("beta", *study, cwd=with_teachers, program="sweeps", **env)
    assert "worker-" not in again
    logs = [path.read_text() for path in with_teachers.glob("store/studies/*/jobs/*.log")]
    assert "  resumed" in "".join(logs)
    assert "cannot be reached" in "".join(logs)

    found = _trials(with_teachers, study)
    assert len(found) == trials
    assert {trial.state for trial in found.values()} == {TrialState.COMPLETE}
    assert _values(found) == _values(_trials(calm, study))
    assert _weights(with_teachers) == _weights(calm)
    _each_has_its_run(server.uri, found)


def _disturb(driver: command.Command, cwd: Path, server: Server, trials: int) -> int:
    """Kill a worker at a random moment after every trial that ends, and stop the server for the
    middle third; return how many were killed."""
    chance, killed, ended = random.Random(0), 0, 0
    stopped, back = False, threading.Thread(target=server.start)
    assert driver.wait_for("worker-1  process"), driver.log.read_text()
    while _wait_for_more(driver, cwd, ended):
        ended = len(command.results(cwd))
        if not stopped and ended >= trials // 3:
            server.stop()
            stopped = True
        if stopped and back.ident is None and ended >= 2 * trials // 3:
            back.start()
        time.sleep(chance.uniform(0, 1.0))
        killed += _kill_one(driver, chance)
    if back.ident is not None:
        back.join()
    return killed


def _wait_for_more(driver: command.Command, cwd: Path, ended: int) -> bool:
    """Whether another trial has ended; False at the end of the command."""
    while len(command.results(cwd)) <= ended:
        if not driver.process.is_alive():
            return False
        time.sleep(0.05)
    return True


def _kill_one(driver: command.Command, chance: random.Random) -> bool:
    """Whether a worker was killed; False between the end of one and the start of the next."""
    pids = dict(re.findall(r"(worker-\d+)  process (\d+)", driver.log.read_text()))
    try:
        os.kill(int(pids[chance.choice(sorted(pids))]), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _trials(cwd: Path, study: tuple[str, ...]) -> dict[str, FrozenTrial]:
    """All trials of a study by label."""
    return read("beta", [*study, f"runtime.store={cwd}/store"]).trial_store().trials()


def _values(trials: dict[str, FrozenTrial]) -> dict[str, tuple[float | None, float]]:
    """(value, beta) by label."""
    return {label: (trial.value, trial.params["method.ib_beta"]) for label, trial in trials.items()}


def _weights(cwd: Path) -> dict[str, str]:
    """The digest of every student's weights by its key."""
    return {key: result["weights"]["student"] for key, result in command.results(cwd).items()}


def _each_has_its_run(uri: str, trials: dict[str, FrozenTrial]) -> None:
    """One finished run of every trial with one finished student, and no metric value twice."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("asib/beta")
    assert experiment is not None
    runs: dict[str, list[Run]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        runs.setdefault(run.data.tags[tags.STAGE], []).append(run)
    assert Counter(run.data.tags[tags.TRIAL] for run in runs["trial"]) == Counter(list(trials))
    assert len(runs["study"]) == 1
    for run in [*runs["study"], *runs["trial"], *runs["distill"]]:
        assert run.info.status == "FINISHED", run.info.run_name
    parents = {run.data.tags[tags.PARENT]: run for run in runs["distill"]}
    assert len(runs["distill"]) == len(parents) == len(trials)
    for run in runs["trial"]:
        student, value = parents[run.info.run_id], trials[run.data.tags[tags.TRIAL]].value
        assert run.data.tags["stage_runs"] == student.info.run_id
        assert run.data.metrics[metrics.BEST_VAL_TOP1] == pytest.approx(value)
        for one, metric in ((run, metrics.BEST_VAL_TOP1), (student, metrics.LOSS_TOTAL)):
            steps = [m.step for m in client.get_metric_history(one.info.run_id, metric)]
            assert len(steps) == len(set(steps)) > 0
