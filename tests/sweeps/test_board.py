"""Where workers meet: every trial once, none lost, none too many."""

import os
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pipeline.lease import Lease
from sweeps.board import Board, point_of
from sweeps.study import Study

RANGE = {"low": 1e-4, "high": 1.0, "log": True}


class Small(Study):
    """A study whose key needs no data set."""

    key = "small-0"  # type: ignore[assignment]


GRID = Small("small", [], space={"a": [1, 2, 3]})
DRAWN = Small(
    "small", [], sampler="tpe", trials=6, space={"a": RANGE}, enqueue=({"a": 0.0}, {"a": 0.5})
)


def board(study: Study, folder: Path) -> Board:
    return Board(study, folder, heartbeat_s=0.1, expiry_s=0.5)


def test_a_grid_is_taken_point_by_point_and_ends(tmp_path: Path) -> None:
    one = board(GRID, tmp_path)
    one.enqueue()
    points = []
    while (taken := one.take(3)) is not None:
        points.append(point_of(taken.trial))
        taken.part.tell(taken.trial, 0.5)
        taken.lease.release()
    assert points == [{"a": 1}, {"a": 2}, {"a": 3}]
    one.enqueue()
    assert len(one.trials()) == 3


def test_points_outside_of_the_space_are_tried_and_kept_from_the_sampler(tmp_path: Path) -> None:
    one = board(DRAWN, tmp_path)
    one.enqueue()
    labels = []
    while (taken := one.take(6)) is not None:
        labels.append((taken.label, point_of(taken.trial)["a"]))
        taken.part.tell(taken.trial, labels[-1][1])
        taken.lease.release()
    assert labels[:2] == [("fixed-0", 0.0), ("0", 0.5)]
    assert [label for label, _ in labels[2:]] == ["1", "2", "3", "4"]
    assert all(1e-4 <= value <= 1 for _, value in labels[1:])
    assert len(one.main.trials) == 5


def test_draws_follow_from_history_not_from_the_worker(tmp_path: Path) -> None:
    drawn = []
    for name in ("x", "y"):
        one = board(DRAWN, tmp_path / name)
        one.enqueue()
        for _ in range(6):
            taken = one.take(6)
            assert taken is not None
            taken.part.tell(taken.trial, 0.1)
            taken.lease.release()
            if name == "y":
                one = board(DRAWN, tmp_path / name)  # another worker each time
        drawn.append([point_of(t) for t in one.trials().values()])
    assert drawn[0] == drawn[1]


def test_a_trial_is_one_workers_until_its_lease_is_free(tmp_path: Path) -> None:
    one, other = board(DRAWN, tmp_path), board(DRAWN, tmp_path)
    one.enqueue()
    first, second = one.take(2), other.take(2)
    assert first is not None
    assert second is not None
    assert (first.label, second.label) == ("fixed-0", "0")
    assert other.take(2) is None
    first.lease.release()  # its worker stopped without a value
    again = other.take(2)
    assert again is not None
    assert (again.label, again.again) == ("fixed-0", True)
    assert point_of(again.trial) == point_of(first.trial) == {"a": 0.0}


def test_a_failed_point_is_tried_again_by_the_next_call(tmp_path: Path) -> None:
    one = board(GRID, tmp_path)
    one.enqueue()
    taken = one.take(3)
    assert taken is not None
    taken.part.tell(taken.trial, state=TrialState.FAIL)
    taken.lease.release()
    one.enqueue()
    waiting = [point_of(t) for t in one.trials().values() if t.state == TrialState.WAITING]
    assert waiting == [{"a": 2}, {"a": 3}, {"a": 1}]


@pytest.mark.parametrize("wanted", [12])
def test_many_workers_ask_for_exactly_as_many_as_are_wanted(tmp_path: Path, wanted: int) -> None:
    board(DRAWN, tmp_path).enqueue()

    def work() -> None:
        mine = board(DRAWN, tmp_path)
        while (taken := mine.take(wanted)) is not None:
            taken.part.tell(taken.trial, 0.3)
            taken.lease.release()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    trials = board(DRAWN, tmp_path).trials()
    assert len(trials) == wanted
    assert {trial.state for trial in trials.values()} == {TrialState.COMPLETE}


def test_a_trial_that_is_told_while_another_worker_looks_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between seeing it RUNNING and holding its lease, its worker may end it."""
    one, other = board(GRID, tmp_path), board(GRID, tmp_path)
    one.enqueue()
    taken = one.take(1)
    assert taken is not None
    acquire = other._lease

    def late(label: str) -> Lease | None:
        taken.part.tell(taken.trial, 0.5)
        taken.lease.release()
        return acquire(label)

    monkeypatch.setattr(other, "_lease", late)
    assert other.take(1) is None
    assert one.trials()[taken.label].value == 0.5


def test_a_trial_that_kills_its_workers_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops after a commit is not counted."""
    monkeypatch.setattr("sweeps.board.MOST_DEATHS", 3)
    board(GRID, tmp_path).enqueue()
    first = board(GRID, tmp_path).take(1)
    assert first is not None
    first.lease.release()
    for _ in range(3):
        _die_of_it(tmp_path)
    assert board(GRID, tmp_path).take(1).label == "1"  # type: ignore[union-attr]
    failed = board(GRID, tmp_path).trials()["0"]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["error"] == "3 workers were killed, or died, on it"


def _die_of_it(folder: Path) -> None:
    """A process takes the first trial, and is gone."""
    pid = os.fork()
    if pid == 0:
        taken = board(GRID, folder).take(1)
        os._exit(0 if taken is not None and taken.label == "0" else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_failed_draw_is_not_drawn_again(tmp_path: Path) -> None:
    study = Small("small", [], sampler="random", trials=2, space={"a": RANGE})
    one, drawn = board(study, tmp_path), []
    while (taken := one.take(2)) is not None and len(drawn) < 4:
        drawn.append(point_of(taken.trial)["a"])
        state = TrialState.FAIL if len(drawn) < 3 else TrialState.COMPLETE
        taken.part.tell(taken.trial, None if len(drawn) < 3 else 0.1, state)
        taken.lease.release()
    assert len(set(drawn)) == len(drawn) == 4


def test_a_trial_whose_worker_died_before_it_drew_is_drawn_as_it_would_have_been(
    tmp_path: Path,
) -> None:
    study = Small("small", [], sampler="random", trials=2, space={"a": RANGE})
    drawn = []
    for name, dies in (("x", False), ("y", True)):
        if dies:
            board(study, tmp_path / name).main.ask()
        taken = board(study, tmp_path / name).take(2)
        assert taken is not None
        assert (taken.label, taken.again) == ("0", dies)
        drawn.append(point_of(taken.trial))
    assert drawn[0] == drawn[1]
