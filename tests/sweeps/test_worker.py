"""A worker's loop with training replaced by a table of results: values, failures, pruning."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from pipeline.storage.run_record import RunResult
from sweeps import worker
from sweeps.study import Params, Study
from sweeps.study_file import study_of
from sweeps.tracking import VALUES, metrics_of
from sweeps.trials import TrialStore
from tests.pipeline import records
from trainers import metrics
from trainers.errors import Interrupted


@pytest.fixture(scope="module")
def study() -> Study:
    given = {"seeds": "0,1", "trials": "4", "pruner": "median"}
    return study_of("beta", given, ["cfg=L1", "data.train_limit=100"])


@pytest.fixture
def trial_store(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialStore:
    monkeypatch.setattr(worker, "publish", lambda *_: True)
    monkeypatch.setattr(worker, "trial_target", lambda *_: None)
    monkeypatch.setattr(worker, "replace", lambda session, **new: SimpleNamespace(**new))
    monkeypatch.setattr(Study, "at", at)
    found = TrialStore(study, tmp_path, heartbeat_s=0.1, expiry_s=0.5)
    found.enqueue()
    return found


def at(study: Study, params: Params, seed: int) -> Any:
    """What the tables of results read of a configuration."""
    method, budget = SimpleNamespace(ib_beta=params["method.ib_beta"]), SimpleNamespace()
    budget.matched_to = "L1" if method.ib_beta == 0 else None
    return SimpleNamespace(seed=seed, method=method, budget=budget)


class Session:
    stopped = False

    def stop(self) -> bool:
        return self.stopped

    def on_epoch(self, history: list[dict[str, Any]]) -> None: ...


def result(val: float) -> RunResult:
    values = {metrics.BEST_VAL_TOP1: val, metrics.TEST_TOP1: 0.9, metrics.RUN_SECONDS: 2.0}
    history = [{"metrics": {metrics.SYNERGY_RESTORED: 0.7}}]
    return records.result(metrics=values, history=history)


def run(trial_store: TrialStore, session: Any = None) -> None:
    worker.work(trial_store, trial_store.study.wanted, session or Session(), None)  # type: ignore[arg-type]


def test_a_value_is_the_mean_validation_of_the_seeds(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        worker, "distill_student", lambda config, _: result(0.5 + 0.2 * config.seed)
    )
    run(trial_store)
    trials = trial_store.trials()
    assert len(trials) == 4
    assert [trial.value for trial in trials.values()] == [pytest.approx(0.6)] * 4
    found = metrics_of(trials["0"].user_attrs[VALUES])
    assert found[metrics.BEST_VAL_TOP1 + "_sd"] == pytest.approx(0.1 * 2**0.5)
    assert (found[metrics.SYNERGY_RESTORED], found[metrics.RUN_SECONDS]) == (0.7, 4.0)


def test_a_run_that_depends_on_others_is_not_pruned_by_their_epochs(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, session = {}, Session()

    def train(config: Any, given: Any) -> RunResult:
        judged[config.budget.matched_to, config.seed] = given.on_epoch != session.on_epoch
        return result(0.5)

    monkeypatch.setattr(worker, "distill_student", train)
    run(trial_store, session)
    assert judged == {("L1", 0): False, ("L1", 1): False, (None, 0): True, (None, 1): False}


def test_a_trial_that_raises_is_failed_and_the_others_continue(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Any, _: Any) -> RunResult:
        if config.method.ib_beta == 0:
            raise ValueError("no beta")
        return result(0.5)

    monkeypatch.setattr(worker, "distill_student", train)
    run(trial_store)
    trials = trial_store.trials()
    assert trials["fixed-0"].state == TrialState.FAIL
    assert trials["fixed-0"].user_attrs["error"] == "ValueError: no beta"
    assert len(trial_store.ended()) == 4  # another one was sampled in its place


def test_a_worker_whose_trials_all_fail_ends(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Any, _: Any) -> RunResult:
        raise OSError("no device")

    monkeypatch.setattr(worker, "distill_student", train)
    with pytest.raises(RuntimeError, match="3 trials in a row"):
        run(trial_store)


def test_a_stopped_trial_is_resumed_as_the_same_trial(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(config: Any, _: Any) -> RunResult:
        raise Interrupted

    monkeypatch.setattr(worker, "distill_student", stopped)
    with pytest.raises(Interrupted):
        run(trial_store)
    assert trial_store.trials()["fixed-0"].state == TrialState.RUNNING
    monkeypatch.setattr(worker, "distill_student", lambda *_: result(0.5))
    run(trial_store)
    assert list(trial_store.trials()) == ["fixed-0", "0", "1", "2"]
    assert len(trial_store.ended()) == 4


def test_pruning_sees_the_students_epochs_of_the_first_seed_only(
    trial_store: TrialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five good trials, then a bad one: the median pruner ends it in its first epoch."""
    seen = []

    def train(config: Any, session: Any) -> RunResult:
        value = 0.1 if len(trial_store.ended()) == 6 else 0.8
        history = []
        for step in "AB":
            history.append({"step": step, "metrics": {metrics.VAL_TOP1: value}})
            session.on_epoch(list(history))
        seen.append((config.seed, value))
        return result(value)

    monkeypatch.setattr(worker, "distill_student", train)
    worker.work(trial_store, 7, Session(), None)  # type: ignore[arg-type]
    last = list(trial_store.trials().values())[-1]
    assert last.state == TrialState.PRUNED
    assert last.intermediate_values == {1: 0.1}
    assert {value for _, value in seen} == {0.8}
