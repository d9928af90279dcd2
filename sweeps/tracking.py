"""Runs of a study in the tracking store: study run → trial runs → stage runs.

Every step can be repeated: existing runs are found, and what did not arrive is sent by the next
worker that ends a trial, or by the next command.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from analysis import tags
from analysis.selection.declared import as_tag
from pipeline.cli.console import say
from pipeline.outcome import FAILED, FINISHED, KILLED, last_line
from pipeline.session import Session
from pipeline.storage.atomic import write_atomic
from pipeline.storage.lease import acquire
from pipeline.storage.run_record import HistoryEntry, RunResult
from pipeline.tracking.creation import is_gone, only_run, source_tags
from pipeline.tracking.replay import replay
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload_state import UploadState
from pipeline.tracking.values import now_ms
from sweeps.study import text_of
from sweeps.trials import ERROR, TrialStore, params_of
from trainers import metrics

log = logging.getLogger("pipeline")

STUDY_STAGE, TRIAL_STAGE = "study", "trial"
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

    folder: Path = field(default_factory=Path)
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    parent: TrackingTarget | None = None
    sent: set[str] | None = None  # of a study: labels of trials that have arrived; None: not known

    def begin(self) -> None:
        """Nothing: the command has the record of its launch run."""

    def parent_id(self) -> str:
        if self.launch_id is None:
            parent = None if self.parent is None else self.parent.parent_id()
            self.launch_id = tracked_run(self, self.folder, self.name, self.tags, parent)
        return self.launch_id


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
    return NestedTarget(
        uri=target.uri,
        experiment=target.experiment,
        launch_id=None,
        verb=target.verb,
        lock_folder=target.lock_folder,
        folder=trial_store.folder,
        name=f"study-{study.key}",
        tags=run_tags,
        parent=target if target.launch_id is not None else None,
    )


def trial_target(trial_store: TrialStore, label: str, study: NestedTarget) -> NestedTarget:
    """The target of a trial's stage runs: children of the trial's run."""
    name, folder = trial_store.study.name, trial_store.place(label)
    run_tags = {tags.STAGE: TRIAL_STAGE, tags.STUDY: trial_store.study.key, tags.TRIAL: label}
    run_tags[tags.BENCH] = trial_store.study.config.bench.name
    return replace(
        study,
        launch_id=None,
        folder=folder,
        name=f"trial-{name}-{label}",
        tags=run_tags,
        parent=study,
    )


def tracked_run(
    target: TrackingTarget, folder: Path, name: str, tags: dict[str, str], parent: str | None
) -> str:
    """The id of the run of these tags; opened once, by the first process that needs it.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    path, client = folder / f"mlflow-{target.key}.json", target.client()
    with acquire(folder / "tracking", poll_s=0.05):
        known = _known(path)
        if known is None or is_gone(client, known):
            known = _only(target, name, tags, parent)
            write_atomic(path, json.dumps({"run_id": known}).encode())
        elif client.get_run(known).info.status != "RUNNING":
            client.update_run(known, status="RUNNING")
        return str(known)


def _known(path: Path) -> str | None:
    """The id of a run in its file; None where there is none, or a damaged one: then the run is
    found by its tags."""
    try:
        return str(json.loads(path.read_bytes())["run_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s is damaged and is made again: %s", path, last_line(error))
        return None


def _only(target: TrackingTarget, name: str, run_tags: dict[str, str], parent: str | None) -> str:
    """The run of these tags: found, where the file with its id was lost, or made."""
    identity = {k: run_tags[k] for k in (tags.STAGE, tags.STUDY, tags.TRIAL) if k in run_tags}
    every = source_tags() | run_tags | ({} if parent is None else {tags.PARENT: parent})
    client, experiment = target.client(), target.experiment_id()
    return only_run(
        client,
        experiment,
        identity,
        lambda: client.create_run(experiment, tags=every, run_name=name),
    )


def publish(trial_store: TrialStore, study: NestedTarget, session: Session) -> bool:
    """Send every ended trial that has not arrived; False where the store cannot be reached."""
    try:
        if study.sent is None:
            study.sent = _arrived(trial_store, study)
        for label, trial in trial_store.trials().items():
            if trial.state in _ENDED and label not in study.sent:
                with acquire(
                    trial_store.place(label) / "sending", poll_s=0.05
                ):  # one process at a time
                    if not _mark(trial_store, label, study).exists():
                        mine = trial_target(trial_store, label, study)
                        _publish_trial(trial_store, label, trial, mine, session)
                        write_atomic(_mark(trial_store, label, study), b"")
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
    client = study.client()
    for label, trial in trial_store.trials().items():
        if trial.state == TrialState.RUNNING:
            mine = trial_target(trial_store, label, study)
            client.set_terminated(mine.parent_id(), KILLED)
    for key, text in run_tags.items():
        client.set_tag(study.parent_id(), key, text)
    client.set_terminated(study.parent_id(), status)


def _mark(trial_store: TrialStore, label: str, study: NestedTarget) -> Path:
    """The file that marks a trial as arrived."""
    return trial_store.place(label) / f"sent-{study.key}"


def _arrived(trial_store: TrialStore, study: NestedTarget) -> set[str]:
    """The trials that are marked as sent and are in the store, which may be a new one, with their
    own status and numbers. The others are sent again, which mends them."""
    trials = trial_store.trials()
    marked = [label for label in trials if _mark(trial_store, label, study).exists()]
    if not marked:
        return set()
    query = f"tags.{tags.STUDY} = '{trial_store.study.key}' and tags.{tags.STAGE} = '{TRIAL_STAGE}'"
    stored, page = set[str](), None
    while page != "":
        found = study.client().search_runs([study.experiment_id()], query, page_token=page)
        stored |= {label for run in found if _is_right(run, trials.get(label := _label(run)))}
        page = found.token or ""
    for label in set(marked) - stored:
        _mark(trial_store, label, study).unlink()
    return stored & set(marked)


def _label(run: Any) -> str:
    return str(run.data.tags.get(tags.TRIAL, ""))


def _is_right(run: Any, trial: FrozenTrial | None) -> bool:
    """Whether the tracked run of a trial has its status and numbers."""
    if trial is None or run.info.status != _ENDED.get(trial.state):
        return False
    wanted = metrics_of(trial.user_attrs.get(VALUES, {}))
    return all(run.data.metrics.get(name) == value for name, value in wanted.items())


def _publish_trial(
    trial_store: TrialStore, label: str, trial: FrozenTrial, target: NestedTarget, session: Session
) -> None:
    """Params, the trial's own metrics, and links to and from its stage runs."""
    from mlflow.entities import Metric, Param, RunTag  # takes seconds: not for a plan

    client, run_id = target.client(), target.parent_id()
    values: dict[str, dict[str, Any]] = trial.user_attrs.get(VALUES, {})
    stages = [
        stage_run
        for one in values.values()
        if (stage_run := _stage_run(one["key"], target, session)) is not None
    ]
    links = {tags.STUDY: trial_store.study.key, tags.TRIAL: label, "trial_run": run_id}
    for stage_run in stages:
        client.log_batch(stage_run, tags=[RunTag(key, text) for key, text in links.items()])
    params = params_of(trial) | {"seeds": ",".join(values), "study": trial_store.study.key}
    error = trial.user_attrs.get(ERROR)
    client.log_batch(
        run_id,
        params=[Param(key, text_of(value)) for key, value in params.items()],
        tags=[
            RunTag("stage_runs", ",".join(stages)),
            *([] if error is None else [RunTag(tags.ERROR, error)]),
        ],
    )
    known = client.get_run(run_id).data.metrics
    metrics = {key: v for key, v in metrics_of(values).items() if known.get(key) != v}
    client.log_batch(
        run_id, metrics=[Metric(key, value, now_ms(), 0) for key, value in metrics.items()]
    )
    client.set_terminated(run_id, _ENDED[trial.state])


def _stage_run(key: str, target: NestedTarget, session: Session) -> str | None:
    """The run of a finished student at this target, sent if it is absent; None where the folder of
    the student was deleted before."""
    folder = session.store.run("distill", key)
    if folder.result() is None:
        return UploadState.load(folder, target).run_id
    return replay(folder, target, log_model=session.runtime.log_model)


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
