"""Trials of a study, shared by its workers: values in Optuna's storage, one lease a trial.

A trial is RUNNING in the storage from its creation until its value is reported, by whichever
worker. The worker that runs it holds the lease of the trial's folder; a RUNNING trial whose lease
is free is resumed by the next worker.

Parameters outside of the space (beta = 0 in a log-uniform range) cannot be in a sampler's history:
they are trials of a second Optuna study, `NAME-fixed`.
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
from sweeps.study import Params, Study, contains

PARAMS = "point"  # attribute of a trial whose parameters were given
FIXED = "fixed-"  # prefix of the labels of trials outside of the space
ERROR = "error"  # attribute of a trial that failed
DEATHS = "deaths"  # attribute: number of workers that ended without releasing it
MOST_DEATHS = 10  # then the trial is failed
_SEED_STEP = 1_000_003

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class ClaimedTrial:
    """A trial whose lease this worker holds."""

    part: optuna.Study
    trial: Trial
    label: str
    lease: Lease
    resumed: bool  # resumed after another worker


class TrialStore:
    """The trials of one study."""

    def __init__(self, study: Study, root: Path, heartbeat_s: float, expiry_s: float) -> None:
        self.study, self.folder = study, root / study.key
        self.heartbeat_s, self.expiry_s = heartbeat_s, expiry_s
        self.fixed_params = [p for p in study.known_params if not contains(study.distributions, p)]
        self._watches: dict[str, Watch] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            kept = storage(self.folder)
            self.main = self._part(kept, study.key)
            self.fixed = None
            if self.fixed_params:
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
        """One process at a time reads and creates trials, so that there are never too many."""
        with acquire(
            self.folder / "ask", heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s, poll_s=0.05
        ):
            yield

    @property
    def parts(self) -> list[tuple[str, optuna.Study]]:
        """(prefix of labels, Optuna study), trials outside of the space first."""
        first = [] if self.fixed is None else [(FIXED, self.fixed)]
        return [*first, ("", self.main)]

    def trials(self) -> dict[str, FrozenTrial]:
        """All trials by label: `fixed-0`, `0`, `1`, …; waiting ones included."""
        return {
            f"{prefix}{trial.number}": trial
            for prefix, part in self.parts
            for trial in part.get_trials(deepcopy=False)
        }

    def place(self, label: str) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / label

    def enqueue(self) -> None:
        """Create the trials of the grid or of `enqueue` that do not exist; again if one failed."""
        with self._alone():
            existing = [
                params_of(trial)
                for trial in self.trials().values()
                if trial.state != TrialState.FAIL
            ]
            for params in self.study.known_params:
                if params not in existing:
                    part = self.fixed if params in self.fixed_params else self.main
                    assert part is not None
                    part.enqueue_trial(params, user_attrs={PARAMS: params})

    def take(self, wanted: int) -> ClaimedTrial | None:
        """A trial to run: one whose worker has ended, else the next; None if there is none.

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
            part = self._sampling(
                self.part_of(label), frozen.number
            )  # it may have no parameters yet
            trial = Trial(part, frozen._trial_id)
            if self._is_open(label, trial):
                return self._claimed(part, trial, label, lease, True)
            lease.release()
        return None

    def _is_open(self, label: str, trial: Trial) -> bool:
        """Whether an abandoned trial, now claimed, still has no value: its worker may have reported
        one in between. A trial during which many workers died is failed."""
        if self.trials()[label].state != TrialState.RUNNING:
            return False
        if self._watches[label].holder.released:  # its worker stopped after a checkpoint
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
                trial = self._sampling(part, len(part.get_trials(deepcopy=False))).ask()
                label = f"{prefix}{trial.number}"
                lease = self._lease(label)
                assert lease is not None, f"trial {label} is new, but its lease is held"
                return self._claimed(part, trial, label, lease, False)
        return None

    def _sampling(self, part: optuna.Study, number: int) -> optuna.Study:
        """A part that samples next what belongs to the trial of this number."""
        part.sampler = _sampler(self.study.sampler, seed=_SEED_STEP * number)
        return part

    def _lease(self, label: str) -> Lease | None:
        watch = self._watches.setdefault(
            label, Watch(heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s)
        )
        return try_acquire(self.place(label), heartbeat_s=self.heartbeat_s, watch=watch)

    def _claimed(
        self, part: optuna.Study, trial: Trial, label: str, lease: Lease, resumed: bool
    ) -> ClaimedTrial:
        space = self.study.distributions
        if part is self.fixed:  # the given values are the only choices
            given = trial.user_attrs[PARAMS]
            space = {key: CategoricalDistribution([value]) for key, value in given.items()}
        for key, one in space.items():  # a resumed trial gets the values that it has
            _suggest(trial, key, one)
        return ClaimedTrial(part, trial, label, lease, resumed)

    def ended(self) -> list[str]:
        """Trials that have a value or were pruned."""
        done = (TrialState.COMPLETE, TrialState.PRUNED)
        return [label for label, trial in self.trials().items() if trial.state in done]

    def begun(self) -> list[str]:
        """Trials that count towards the wanted number."""
        idle = (TrialState.WAITING, TrialState.FAIL)
        return [label for label, trial in self.trials().items() if trial.state not in idle]

    def part_of(self, label: str) -> optuna.Study:
        """The Optuna study that a trial belongs to."""
        return self.fixed if self.fixed is not None and label.startswith(FIXED) else self.main

    def is_halted(self, label: str) -> bool:
        """Whether no process runs a trial that was begun, as far as can be seen at once: its worker
        released it, or was a process of this machine that has ended."""
        if not self.place(label).is_dir():  # it has just been created
            return False
        watch = Watch(heartbeat_s=self.heartbeat_s, expiry_s=self.expiry_s)
        watch.look(self.place(label))
        return watch.generation > 0 and watch.is_free

    def running(self) -> bool:
        """Whether a worker runs a trial, or may do so."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials().values())


def params_of(trial: FrozenTrial | Trial) -> Params:
    """The parameters of a trial: given, or sampled."""
    return dict(trial.user_attrs.get(PARAMS) or trial.params)


def _suggest(trial: Trial, key: str, one: BaseDistribution) -> None:
    if isinstance(one, CategoricalDistribution):
        trial.suggest_categorical(key, one.choices)
    elif isinstance(one, IntDistribution):
        trial.suggest_int(key, one.low, one.high, log=one.log)
    elif isinstance(one, FloatDistribution):
        trial.suggest_float(key, one.low, one.high, log=one.log)


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler that depends on the history and the seed alone, not on the worker."""
    seed %= 2**32
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    """The pruner; its steps are the student's epochs."""
    if study.pruner == "hyperband":
        most = study.config.budget.student_epochs
        return optuna.pruners.HyperbandPruner(min_resource=max(1, most // 9), max_resource=most)
    if study.pruner == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.NopPruner()
