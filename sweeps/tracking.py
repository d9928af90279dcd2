"""Runs of a study in the tracking store: study run → trial runs → stage runs.

Every step can be repeated: existing runs are found, and what did not arrive is sent by the next
worker that ends a trial, or by the next command.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from analysis import tags
from analysis.runs import opened
from analysis.selection.declared import as_tag
from pipeline.cli.console import say
from pipeline.outcome import FAILED, FINISHED, KILLED, last_line
from pipeline.session import Session
from pipeline.storage.lease import acquire
from pipeline.storage.run_record import HistoryEntry, RunResult
from pipeline.tracking.audit import RIGHT, WRONG
from pipeline.tracking.plain_runs import FOLDER, STUDY_STAGE, TRIAL_STAGE, PlainRun, read
from pipeline.tracking.plain_upload import differences
from pipeline.tracking.replay import replay
from pipeline.tracking.target import TrackingTarget
from sweeps.study import text_of
from sweeps.trials import ERROR, TrialStore, params_of
from trainers import metrics

VALUES = "values"  # attribute of a trial: its results, one entry a seed
_ENDED = {
    TrialState.COMPLETE: FINISHED,
    TrialState.PRUNED: KILLED,
    TrialState.FAIL: FAILED,
}
# name in the tracking store -> name in a trial's values
_MEANS = {
    metrics.BEST_VAL_TOP1: "val",
    metrics.TEST_TOP1: "test",
    metrics.SYNERGY_RESTORED: "synergy",
}


@dataclass
class NestedTarget(TrackingTarget):
    """A tracking target whose runs are children of the run of a study or a trial. That run is
    opened when the first child is sent."""

    folder: Path = field(default_factory=Path)  # whose lease is held while this run is opened
    run: PlainRun = field(default_factory=lambda: PlainRun("", "", "", "", ""))
    parent: TrackingTarget | None = None
    sent: set[str] | None = None  # of a study: labels of trials that have arrived; None: not known

    def begin(self) -> None:
        """Nothing: the command has the record of its launch run."""

    def parent_id(self) -> str:
        if self.launch_id is None:
            with acquire(self.folder / "tracking", poll_s=0.05):
                run = self.record()
                run.status, run.parent = None, self._parent_of(run)
                run.save()
                if run.stage == STUDY_STAGE:
                    self._hold(run)
                self.launch_id = self.opened(run)
                run.save()
        return self.launch_id

    def _parent_of(self, run: PlainRun) -> str | None:
        """The id of the run that this one is a child of; a worker has the study's own as launch."""
        parent = run.parent if self.parent is None else self.parent.parent_id()
        return run.parent if parent == run.run_id else parent

    def record(self) -> PlainRun:
        """The record of the run, with what is known of it now."""
        known = read(self.run.file)
        if known is None:
            return replace(self.run)
        return replace(known, tags=known.tags | self.run.tags)

    def end_run(
        self,
        run: PlainRun,
        status: str,
        run_tags: Mapping[str, str],
        send_children: Callable[[], None] = lambda: None,
    ) -> None:
        """End the run, after its children have been sent; `sync` does so where this fails."""
        run.ended(status, run_tags)
        with acquire(self.folder / "tracking", poll_s=0.05):
            run.parent = self._parent_of(run)
            run.save()
            self.launch_id = self.upload(run).open()
            run.save()
            send_children()
            self.ended(run, status, {})
        self.leave_launch()


def study_target(trial_store: TrialStore, target: TrackingTarget) -> NestedTarget:
    """The target of trial runs: children of the study's run."""
    study = trial_store.study
    run_tags = {
        tags.STAGE: STUDY_STAGE,
        tags.STUDY: study.key,
        tags.BENCH: study.config.bench.name,
        "question": study.name,
        "sampler": study.sampler,
        "pruner": study.pruner,
        "seeds": ",".join(map(str, study.seeds)),
        "base": " ".join(study.base),
    }
    if study.claim is not None:  # as it is now: a later change of the file changes no declaration
        run_tags[tags.CLAIM] = as_tag({"seeds": list(study.seeds)} | study.claim)
    run = target.plain_run(STUDY_STAGE, target.experiment)
    run.name, run.tags = f"study-{study.key}", run_tags
    run.folder = str(target.lock_folder / FOLDER / f"{study.key}-{target.key}")
    return NestedTarget(
        uri=target.uri,
        experiment=target.experiment,
        launch_id=None,
        verb=target.verb,
        lock_folder=target.lock_folder,
        command=target.command,
        folder=trial_store.folder,
        run=run,
        parent=target if target.launch_id is not None else None,
    )


def trial_target(trial_store: TrialStore, label: str, study: NestedTarget) -> NestedTarget:
    """The target of a trial's stage runs: children of the trial's run."""
    name, folder = trial_store.study.name, trial_store.place(label)
    run_tags = {tags.STAGE: TRIAL_STAGE, tags.STUDY: trial_store.study.key, tags.TRIAL: label}
    run_tags[tags.BENCH] = trial_store.study.config.bench.name
    run = replace(
        study.run,
        stage=TRIAL_STAGE,
        name=f"trial-{name}-{label}",
        leased=str(folder),
        tags=run_tags,
    )
    return replace(study, launch_id=None, folder=folder, run=run, parent=study)


def publish(trial_store: TrialStore, study: NestedTarget, session: Session) -> bool:
    """Send every ended trial that has not arrived; False where the store cannot be reached."""
    try:
        if study.sent is None:
            study.sent = _arrived(trial_store, study)
        for label, trial in trial_store.trials().items():
            if trial.state in _ENDED and label not in study.sent:
                _publish_trial(trial, trial_target(trial_store, label, study), session)
                study.sent.add(label)
    except Exception as error:  # noqa: BLE001 - reported; the trials are in the storage
        reason = last_line(error)[:120]
        say(f"the tracking store cannot be reached ({reason}): run the same command later to send")
        return False
    return True


def end(
    trial_store: TrialStore, study: NestedTarget, status: str, run_tags: Mapping[str, str]
) -> None:
    """End the study's run, with tags, and as KILLED those of trials that no worker holds.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    for label, trial in trial_store.trials().items():
        if trial.state == TrialState.RUNNING:
            mine = trial_target(trial_store, label, study)
            mine.end_run(mine.record(), KILLED, {})
    study.end_run(study.record(), status, run_tags)


def _arrived(trial_store: TrialStore, study: NestedTarget) -> set[str]:
    """The trials that are in the tracking store, which may be a new one, with their own status and
    numbers. The others are sent again, which mends them."""
    ended = {k: trial for k, trial in trial_store.trials().items() if trial.state in _ENDED}
    if not study.run.file.exists():
        return set()
    targets = {label: trial_target(trial_store, label, study) for label in ended}
    runs = {label: one.record() for label, one in targets.items()}
    kinds = differences(runs.values(), opened(study.uri), study.experiment_id())
    for run in runs.values():
        if kinds[str(run.file)] == WRONG:
            study.upload(run).make_again()
            run.save()
    return {
        label
        for label, run in runs.items()
        if run.status == _ENDED[ended[label].state]
        and run.numbers == metrics_of(ended[label].user_attrs.get(VALUES, {}))
        and kinds[str(run.file)] == RIGHT
    }


def _publish_trial(trial: FrozenTrial, target: NestedTarget, session: Session) -> None:
    """Params, the trial's own metrics, and links to and from its stage runs."""
    values: dict[str, dict[str, Any]] = trial.user_attrs.get(VALUES, {})
    run = target.record()
    params = params_of(trial) | {"seeds": ",".join(values), "study": run.tags[tags.STUDY]}
    run.params = {key: text_of(value) for key, value in params.items()}
    run.numbers = metrics_of(values)
    run.students = [one["key"] for one in values.values()]
    error = trial.user_attrs.get(ERROR)

    def send_students() -> None:
        for key in run.students:
            folder = session.store.run("distill", key)
            if folder.result() is not None:  # else its folder was deleted
                replay(folder, target, log_model=session.runtime.log_model)

    run_tags = {} if error is None else {tags.ERROR: error}
    target.end_run(run, _ENDED[trial.state], run_tags, send_students)


def metrics_of(values: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Means over seeds, their standard deviation where there are two or more, and the cost."""
    found = {}
    for name, key in _MEANS.items():
        numbers = [one[key] for one in values.values() if one.get(key) is not None]
        if numbers:
            found[name] = statistics.fmean(numbers)
        if len(numbers) > 1:
            found[f"{name}_sd"] = statistics.stdev(numbers)
    if values:
        found[metrics.RUN_SECONDS] = sum(one["seconds"] for one in values.values())
    return found


def value_of(result: RunResult) -> dict[str, Any]:
    """The part of a finished run's result that a trial stores."""
    values = result.metrics
    return {
        "key": result.key,
        "val": values.get(metrics.BEST_VAL_TOP1),
        "test": values.get(metrics.TEST_TOP1),
        "synergy": _last(result.history, metrics.SYNERGY_RESTORED),
        "seconds": values[metrics.RUN_SECONDS],
    }


def _last(history: Iterable[HistoryEntry], name: str) -> float | None:
    found = [entry["metrics"][name] for entry in history if name in entry["metrics"]]
    return found[-1] if found else None
