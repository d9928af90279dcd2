"""A worker's loop with training replaced by a table of results: values, failures, pruning."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from pipeline import names
from sweeps import worker
from sweeps.board import Board
from sweeps.reading import study_of
from sweeps.runs import VALUES, metrics_of
from sweeps.study import Point, Study
from trainers.loop import Interrupted


@pytest.fixture(scope="module")
def study() -> Study:
    typed = {"seeds": "0,1", "trials": "4", "pruner": "median"}
    return study_of("beta", typed, ["cfg=L1", "data.train_limit=100"])


@pytest.fixture
def board(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setattr(worker, "publish", lambda *_: True)
    monkeypatch.setattr(worker, "trial_destination", lambda *_: None)
    monkeypatch.setattr(worker, "replace", lambda shell, **new: SimpleNamespace(**new))
    monkeypatch.setattr(Study, "at", at)
    found = Board(study, tmp_path, heartbeat_s=0.1, expiry_s=0.5)
    found.enqueue()
    return found


def at(study: Study, point: Point, seed: int) -> Any:
    """What the tables of results read of a configuration."""
    method, budget = SimpleNamespace(ib_beta=point["method.ib_beta"]), SimpleNamespace()
    budget.matched_to = "L1" if method.ib_beta == 0 else None
    return SimpleNamespace(seed=seed, method=method, budget=budget)


class Shell:
    stopped = False

    def stop(self) -> bool:
        return self.stopped

    def on_epoch(self, history: list[dict[str, Any]]) -> None: ...


def result(val: float) -> dict[str, Any]:
    metrics = {names.BEST_VAL_TOP1: val, names.TEST_TOP1: 0.9, names.RUN_SECONDS: 2.0}
    history = [{"metrics": {names.SYNERGY_RESTORED: 0.7}}]
    return {"metrics": metrics, "history": history, "key": "key"}


def run(board: Board, shell: Any = None) -> None:
    worker.work(board, board.study.wanted, shell or Shell(), None)  # type: ignore[arg-type]


def test_a_value_is_the_mean_validation_of_the_seeds(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        worker, "distill_student", lambda config, _: result(0.5 + 0.2 * config.seed)
    )
    run(board)
    trials = board.trials()
    assert len(trials) == 4
    assert [trial.value for trial in trials.values()] == [pytest.approx(0.6)] * 4
    found = metrics_of(trials["0"].user_attrs[VALUES])
    assert found[names.BEST_VAL_TOP1 + "_sd"] == pytest.approx(0.1 * 2**0.5)
    assert (found[names.SYNERGY_RESTORED], found[names.RUN_SECONDS]) == (0.7, 4.0)


def test_a_run_that_follows_from_others_is_not_judged_by_their_epochs(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, shell = {}, Shell()

    def train(config: Any, given: Any) -> dict[str, Any]:
        judged[config.budget.matched_to, config.seed] = given.on_epoch != shell.on_epoch
        return result(0.5)

    monkeypatch.setattr(worker, "distill_student", train)
    run(board, shell)
    assert judged == {("L1", 0): False, ("L1", 1): False, (None, 0): True, (None, 1): False}


def test_a_trial_that_raises_is_failed_and_the_others_go_on(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Any, _: Any) -> dict[str, Any]:
        if config.method.ib_beta == 0:
            raise ValueError("no beta")
        return result(0.5)

    monkeypatch.setattr(worker, "distill_student", train)
    run(board)
    trials = board.trials()
    assert trials["fixed-0"].state == TrialState.FAIL
    assert trials["fixed-0"].user_attrs["error"] == "ValueError: no beta"
    assert len(board.ended()) == 4  # another one was drawn in its place


def test_a_worker_whose_trials_all_fail_ends(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: Any, _: Any) -> dict[str, Any]:
        raise OSError("no device")

    monkeypatch.setattr(worker, "distill_student", train)
    with pytest.raises(RuntimeError, match="3 trials in a row"):
        run(board)


def test_a_stopped_trial_is_taken_up_again_as_the_same_trial(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(config: Any, _: Any) -> dict[str, Any]:
        raise Interrupted

    monkeypatch.setattr(worker, "distill_student", stopped)
    with pytest.raises(Interrupted):
        run(board)
    assert board.trials()["fixed-0"].state == TrialState.RUNNING
    monkeypatch.setattr(worker, "distill_student", lambda *_: result(0.5))
    run(board)
    assert list(board.trials()) == ["fixed-0", "0", "1", "2"]
    assert len(board.ended()) == 4


def test_pruning_sees_the_students_epochs_of_the_first_seed_only(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five good trials, then a bad one: the median pruner ends it in its first epoch."""
    seen = []

    def train(config: Any, shell: Any) -> dict[str, Any]:
        value = 0.1 if len(board.ended()) == 6 else 0.8
        history = []
        for step in "AB":
            history.append({"step": step, "metrics": {names.VAL_TOP1: value}})
            shell.on_epoch(list(history))
        seen.append((config.seed, value))
        return result(value)

    monkeypatch.setattr(worker, "distill_student", train)
    worker.work(board, 7, Shell(), None)  # type: ignore[arg-type]
    last = list(board.trials().values())[-1]
    assert last.state == TrialState.PRUNED
    assert last.intermediate_values == {1: 0.1}
    assert {value for _, value in seen} == {0.8}
