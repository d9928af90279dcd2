"""Where workers meet: every trial once, none lost, none too many."""

import os
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pipeline.storage.lease import Lease
from sweeps.study import Study
from sweeps.trials import TrialStore, params_of

RANGE = {"low": 1e-4, "high": 1.0, "log": True}


class Small(Study):
    """A study whose key needs no data set."""

    key = "small-0"  # type: ignore[assignment]


GRID = Small("small", [], space={"a": [1, 2, 3]})
SAMPLED = Small(
    "small", [], sampler="tpe", trials=6, space={"a": RANGE}, enqueue=({"a": 0.0}, {"a": 0.5})
)


def trial_store(study: Study, folder: Path) -> TrialStore:
    return TrialStore(study, folder, heartbeat_s=0.1, expiry_s=0.5)


def test_a_grid_is_claimed_in_order_and_ends(tmp_path: Path) -> None:
    one = trial_store(GRID, tmp_path)
    one.enqueue()
    taken = []
    while (claimed := one.take(3)) is not None:
        taken.append(params_of(claimed.trial))
        claimed.part.tell(claimed.trial, 0.5)
        claimed.lease.release()
    assert taken == [{"a": 1}, {"a": 2}, {"a": 3}]
    one.enqueue()
    assert len(one.trials()) == 3


def test_parameters_outside_of_the_space_are_tried_and_kept_from_the_sampler(
    tmp_path: Path,
) -> None:
    one = trial_store(SAMPLED, tmp_path)
    one.enqueue()
    labels = []
    while (claimed := one.take(6)) is not None:
        labels.append((claimed.label, params_of(claimed.trial)["a"]))
        claimed.part.tell(claimed.trial, labels[-1][1])
        claimed.lease.release()
    assert labels[:2] == [("fixed-0", 0.0), ("0", 0.5)]
    assert [label for label, _ in labels[2:]] == ["1", "2", "3", "4"]
    assert all(1e-4 <= value <= 1 for _, value in labels[1:])
    assert len(one.main.trials) == 5


def test_samples_depend_on_the_history_and_not_on_the_worker(tmp_path: Path) -> None:
    samples = []
    for name in ("x", "y"):
        one = trial_store(SAMPLED, tmp_path / name)
        one.enqueue()
        for _ in range(6):
            claimed = one.take(6)
            assert claimed is not None
            claimed.part.tell(claimed.trial, 0.1)
            claimed.lease.release()
            if name == "y":
                one = trial_store(SAMPLED, tmp_path / name)  # another worker each time
        samples.append([params_of(t) for t in one.trials().values()])
    assert samples[0] == samples[1]


def test_a_trial_belongs_to_one_worker_until_its_lease_is_free(tmp_path: Path) -> None:
    one, other = trial_store(SAMPLED, tmp_path), trial_store(SAMPLED, tmp_path)
    one.enqueue()
    first, second = one.take(2), other.take(2)
    assert first is not None
    assert second is not None
    assert (first.label, second.label) == ("fixed-0", "0")
    assert other.take(2) is None
    first.lease.release()  # its worker stopped without a value
    again = other.take(2)
    assert again is not None
    assert (again.label, again.resumed) == ("fixed-0", True)
    assert params_of(again.trial) == params_of(first.trial) == {"a": 0.0}


def test_a_failed_configuration_is_tried_again_by_the_next_command(tmp_path: Path) -> None:
    one = trial_store(GRID, tmp_path)
    one.enqueue()
    claimed = one.take(3)
    assert claimed is not None
    claimed.part.tell(claimed.trial, state=TrialState.FAIL)
    claimed.lease.release()
    one.enqueue()
    waiting = [params_of(t) for t in one.trials().values() if t.state == TrialState.WAITING]
    assert waiting == [{"a": 2}, {"a": 3}, {"a": 1}]


@pytest.mark.parametrize("wanted", [12])
def test_many_workers_create_exactly_the_wanted_number_of_trials(
    tmp_path: Path, wanted: int
) -> None:
    trial_store(SAMPLED, tmp_path).enqueue()

    def work() -> None:
        mine = trial_store(SAMPLED, tmp_path)
        while (claimed := mine.take(wanted)) is not None:
            claimed.part.tell(claimed.trial, 0.3)
            claimed.lease.release()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    trials = trial_store(SAMPLED, tmp_path).trials()
    assert len(trials) == wanted
    assert {trial.state for trial in trials.values()} == {TrialState.COMPLETE}


def test_a_trial_that_ends_while_another_worker_claims_it_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between seeing it RUNNING and holding its lease, its worker may end it."""
    one, other = trial_store(GRID, tmp_path), trial_store(GRID, tmp_path)
    one.enqueue()
    claimed = one.take(1)
    assert claimed is not None
    acquire = other._lease

    def late(label: str) -> Lease | None:
        claimed.part.tell(claimed.trial, 0.5)
        claimed.lease.release()
        return acquire(label)

    monkeypatch.setattr(other, "_lease", late)
    assert other.take(1) is None
    assert one.trials()[claimed.label].value == 0.5


def test_a_trial_that_kills_its_workers_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops after a commit is not counted."""
    monkeypatch.setattr("sweeps.trials.MOST_DEATHS", 3)
    trial_store(GRID, tmp_path).enqueue()
    first = trial_store(GRID, tmp_path).take(1)
    assert first is not None
    first.lease.release()
    for _ in range(3):
        _die_of_it(tmp_path)
    assert trial_store(GRID, tmp_path).take(1).label == "1"  # type: ignore[union-attr]
    failed = trial_store(GRID, tmp_path).trials()["0"]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["error"] == "3 workers were killed, or died, on it"


def _die_of_it(folder: Path) -> None:
    """A process takes the first trial, and is gone."""
    pid = os.fork()
    if pid == 0:
        claimed = trial_store(GRID, folder).take(1)
        os._exit(0 if claimed is not None and claimed.label == "0" else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_failed_sample_is_not_sampled_again(tmp_path: Path) -> None:
    study = Small("small", [], sampler="random", trials=2, space={"a": RANGE})
    one, samples = trial_store(study, tmp_path), []
    while (claimed := one.take(2)) is not None and len(samples) < 4:
        samples.append(params_of(claimed.trial)["a"])
        state = TrialState.FAIL if len(samples) < 3 else TrialState.COMPLETE
        claimed.part.tell(claimed.trial, None if len(samples) < 3 else 0.1, state)
        claimed.lease.release()
    assert len(set(samples)) == len(samples) == 4


def test_a_trial_whose_worker_died_before_sampling_gets_the_same_sample(
    tmp_path: Path,
) -> None:
    study = Small("small", [], sampler="random", trials=2, space={"a": RANGE})
    samples = []
    for name, dies in (("x", False), ("y", True)):
        if dies:
            trial_store(study, tmp_path / name).main.ask()
        claimed = trial_store(study, tmp_path / name).take(2)
        assert claimed is not None
        assert (claimed.label, claimed.resumed) == ("0", dies)
        samples.append(params_of(claimed.trial))
    assert samples[0] == samples[1]
