"""Where workers of a study meet: Optuna's storage for what was tried, leases for who tries it.

A trial is RUNNING in the storage from when it is asked for until its value is told, whoever works
on it and however often it changes hands. Who works on it holds the lease of the trial's folder;
a RUNNING trial whose lease is free is taken up again by the next worker that looks.

Points that do not lie in the space (beta = 0 in a log-uniform range) cannot be in a sampler's
history; they are trials of a second study beside the first, `NAME-fixed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.storage.lease import Lease, Watch, acquire, try_acquire
from sweeps.storage import storage
from sweeps.study import Point, Study, contains

POINT = "point"  # attribute of a trial that was given its point
FIXED = "fixed-"  # how labels of points outside of the space begin
ERROR = "error"  # attribute of a trial that failed
DEATHS = "deaths"  # attribute: how many workers ended without letting go of it
MOST_DEATHS = 10  # then it is the trial that kills them
_SEED_STEP = 1_000_003

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class ClaimedTrial:
    """A trial that this worker holds."""

    part: optuna.Study
    trial: Trial
    label: str
    lease: Lease
    again: bool  # taken up from a worker that is gone


class TrialStore:
    """The trials of one study."""

    def __init__(self, study: Study, root: Path, heartbeat_s: float, expiry_s: float) -> None:
        self.study, self.folder = study, root / study.key
        self.heartbeat_s, self.expiry_s = heartbeat_s, expiry_s
        self.fixed_points = [p for p in study.points if not contains(study.distributions, p)]
        self._watches: dict[str, Watch] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            kept = storage(self.folder)
            self.main = self._part(kept, study.key)
            self.fixed = None
            if self.fixed_points:
                self.fixed = self._part(kept, f"{study.key}-fixed")

    def _part(self, kept: BaseStorage, name: str) -> optuna.Study:
        return optuna.create_study(
            storage=kept,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(self.study),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time looks and asks, so that no trial is asked for too many."""
        with acquire(
            self.folder / "ask", heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s, poll_s=0.05
        ):
            yield

    @property
    def parts(self) -> list[tuple[str, optuna.Study]]:
        """(prefix of labels, Optuna study), the fixed points first."""
        first = [] if self.fixed is None else [(FIXED, self.fixed)]
        return [*first, ("", self.main)]

    def trials(self) -> dict[str, FrozenTrial]:
        """All trials by label: `fixed-0`, `0`, `1`, …; those that nobody has begun included."""
        return {
            f"{prefix}{trial.number}": trial
            for prefix, part in self.parts
            for trial in part.get_trials(deepcopy=False)
        }

    def place(self, label: str) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / label

    def enqueue(self) -> None:
        """See to it that every point of the grid or of `enqueue` is there; one that failed is
        tried again."""
        with self._alone():
            there = [
                point_of(trial)
                for trial in self.trials().values()
                if trial.state != TrialState.FAIL
            ]
            for point in self.study.points:
                if point not in there:
                    part = self.fixed if point in self.fixed_points else self.main
                    assert part is not None
                    part.enqueue_trial(point, user_attrs={POINT: point})

    def take(self, wanted: int) -> ClaimedTrial | None:
        """A trial to work on: one whose worker is gone, else the next; None if there is none.

        Raises OSError if the file system fails.
        """
        with self._alone():
            return self._abandoned() or self._next(wanted)

    def _abandoned(self) -> ClaimedTrial | None:
        for label, frozen in self.trials().items():
            if frozen.state != TrialState.RUNNING:
                continue
            if (lease := self._lease(label)) is None:
                continue
            part = self._drawing(self.part_of(label), frozen.number)  # it may have no point yet
            trial = Trial(part, frozen._trial_id)
            if self._is_open(label, trial):
                return self._taken(part, trial, label, lease, True)
            lease.release()
        return None

    def _is_open(self, label: str, trial: Trial) -> bool:
        """Whether a trial that looked abandoned still waits for its value, now that it is ours:
        its worker may have told it since we looked. One that many workers died of is failed."""
        if self.trials()[label].state != TrialState.RUNNING:
            return False
        if self._watches[label].holder.released:  # its worker stopped after a commit
            return True
        deaths = trial.user_attrs.get(DEATHS, 0) + 1
        trial.set_user_attr(DEATHS, deaths)
        if deaths < MOST_DEATHS:
            return True
        trial.set_user_attr(ERROR, f"{deaths} workers were killed, or died, on it")
        self.part_of(label).tell(trial, state=TrialState.FAIL)
        return False

    def _next(self, wanted: int) -> ClaimedTrial | None:
        if len(self.begun()) >= wanted:
            return None
        trials = self.trials()
        for prefix, part in self.parts:
            waits = any(
                trial.state == TrialState.WAITING and self.part_of(label) is part
                for label, trial in trials.items()
            )
            if waits or (part is self.main and self.study.sampler != "grid"):
                trial = self._drawing(part, len(part.get_trials(deepcopy=False))).ask()
                label = f"{prefix}{trial.number}"
                lease = self._lease(label)
                assert lease is not None, f"trial {label} is new and held by someone"
                return self._taken(part, trial, label, lease, False)
        return None

    def _drawing(self, part: optuna.Study, number: int) -> optuna.Study:
        """A part whose next draw is that of the trial of this number."""
        part.sampler = _sampler(self.study.sampler, seed=_SEED_STEP * number)
        return part

    def _lease(self, label: str) -> Lease | None:
        watch = self._watches.setdefault(
            label, Watch(heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s)
        )
        return try_acquire(self.place(label), heartbeat_s=self.heartbeat_s, watch=watch)

    def _taken(
        self, part: optuna.Study, trial: Trial, label: str, lease: Lease, again: bool
    ) -> ClaimedTrial:
        space = self.study.distributions
        if part is self.fixed:  # what it has been given is all that it can be
            given = trial.user_attrs[POINT]
            space = {key: CategoricalDistribution([value]) for key, value in given.items()}
        for key, one in space.items():  # what an earlier worker was told is told again
            _suggest(trial, key, one)
        return ClaimedTrial(part, trial, label, lease, again)

    def ended(self) -> list[str]:
        """Trials that have a value or were pruned."""
        done = (TrialState.COMPLETE, TrialState.PRUNED)
        return [label for label, trial in self.trials().items() if trial.state in done]

    def begun(self) -> list[str]:
        """Trials that count towards the number that was asked for."""
        idle = (TrialState.WAITING, TrialState.FAIL)
        return [label for label, trial in self.trials().items() if trial.state not in idle]

    def part_of(self, label: str) -> optuna.Study:
        """The Optuna study that a trial belongs to."""
        return self.fixed if self.fixed is not None and label.startswith(FIXED) else self.main

    def is_halted(self, label: str) -> bool:
        """Whether nobody works on a trial that was begun, as far as one look tells: its worker let
        go of it, or was a process of this machine that is gone."""
        if not self.place(label).is_dir():  # it was asked for this moment
            return False
        watch = Watch(heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s)
        watch.look(self.place(label))
        return watch.generation > 0 and watch.is_free

    def running(self) -> bool:
        """Whether someone is, or seems to be, at work on a trial."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials().values())


def point_of(trial: FrozenTrial | Trial) -> Point:
    """What a trial sets: what it was given, or what the sampler drew."""
    return dict(trial.user_attrs.get(POINT) or trial.params)


def _suggest(trial: Trial, key: str, one: BaseDistribution) -> None:
    if isinstance(one, CategoricalDistribution):
        trial.suggest_categorical(key, one.choices)
    elif isinstance(one, IntDistribution):
        trial.suggest_int(key, one.low, one.high, log=one.log)
    elif isinstance(one, FloatDistribution):
        trial.suggest_float(key, one.low, one.high, log=one.log)


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler whose draws follow from the history and the seed, whichever worker asks."""
    seed %= 2**32
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    """Steps are the student's epochs."""
    if study.pruner == "hyperband":
        most = study.config.budget.student_epochs
        return optuna.pruners.HyperbandPruner(min_resource=max(1, most // 9), max_resource=most)
    if study.pruner == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.NopPruner()
