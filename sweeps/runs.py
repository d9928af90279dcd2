"""The study and its trials in the tracking store: study run → trial runs → stage runs.

All of it can be done again: what is there is found, and what did not arrive is sent by the next
worker that ends a trial, or by the next call.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from optuna.trial import FrozenTrial, TrialState

from pipeline import names
from pipeline.console import say
from pipeline.destination import Destination
from pipeline.durable import write_atomic
from pipeline.lease import acquire
from pipeline.publish import Record, is_gone, last_line, now_ms, replay
from pipeline.shell import Shell
from sweeps.board import ERROR, Board, point_of
from sweeps.study import spoken

STUDY_STAGE, TRIAL_STAGE = "study", "trial"
VALUES = "values"  # attribute of a trial: what is known of it, one entry a seed
_ENDED = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}
# name in the tracking store -> name in a trial's values
_MEANS = {
    names.BEST_VAL_TOP1: "val",
    names.TEST_TOP1: "test",
    names.SYNERGY_RESTORED: "synergy",
}


@dataclass
class TrialDestination(Destination):
    """Where the stage runs of a trial go: below the trial's run, which is opened when the first
    of them is sent."""

    place: Path = field(default_factory=Path)
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    above: Destination | None = None
    sent: set[str] | None = None  # of a study: labels of trials that have arrived; None: not asked

    def parent_id(self) -> str:
        if self.launch_id is None:
            parent = None if self.above is None else self.above.parent_id()
            self.launch_id = tracked_run(self, self.place, self.name, self.tags, parent)
        return self.launch_id


def study_destination(board: Board, destination: Destination) -> TrialDestination:
    """Where trials go: below the study's run."""
    study = board.study
    tags = {
        names.STAGE: STUDY_STAGE, names.STUDY: study.key, names.BENCH: study.config.bench.name,
        "question": study.name, "sampler": study.sampler, "pruner": study.pruner,
        "seeds": ",".join(map(str, study.seeds)), "base": " ".join(study.base),
    }  # fmt: skip
    return TrialDestination(
        uri=destination.uri, experiment=destination.experiment, launch_id=None,
        verb=destination.verb, lock_folder=destination.lock_folder, place=board.folder,
        name=f"study-{study.key}", tags=tags,
        above=destination if destination.launch_id is not None else None,
    )  # fmt: skip


def trial_destination(board: Board, label: str, study: TrialDestination) -> TrialDestination:
    """Where the stage runs of a trial go."""
    name, place = board.study.name, board.place(label)
    tags = {names.STAGE: TRIAL_STAGE, names.STUDY: board.study.key, names.TRIAL: label}
    tags[names.BENCH] = board.study.config.bench.name
    return replace(
        study, launch_id=None, place=place, name=f"trial-{name}-{label}", tags=tags, above=study
    )


def tracked_run(
    destination: Destination, place: Path, name: str, tags: dict[str, str], parent: str | None
) -> str:
    """The id of the run of these tags; opened once, whoever asks first.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    path, client = place / f"mlflow-{destination.key}.json", destination.client()
    with acquire(place / "tracking", poll_s=0.05):
        known = json.loads(path.read_text())["run_id"] if path.is_file() else None
        if known is None or is_gone(client, known):
            known = _found(destination, tags) or _created(destination, name, tags, parent)
            write_atomic(path, json.dumps({"run_id": known}).encode())
        elif client.get_run(known).info.status != "RUNNING":
            client.update_run(known, status="RUNNING")
        return str(known)


def _found(destination: Destination, tags: dict[str, str]) -> str | None:
    """The run of these tags, where the folder that knew it was lost."""
    wanted = {k: tags[k] for k in (names.STAGE, names.STUDY, names.TRIAL) if k in tags}
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
    found = destination.client().search_runs([destination.experiment_id()], query)
    return str(found[0].info.run_id) if found else None


def _created(destination: Destination, name: str, tags: dict[str, str], parent: str | None) -> str:
    more = {} if parent is None else {names.PARENT: parent}
    run = destination.client().create_run(
        destination.experiment_id(), tags=tags | more, run_name=name
    )
    return str(run.info.run_id)


def publish(board: Board, study: TrialDestination, shell: Shell) -> bool:
    """Send every ended trial that has not arrived; False where the store cannot be reached."""
    try:
        if study.sent is None:
            study.sent = _arrived(board, study)
        for label, trial in board.trials().items():
            if trial.state in _ENDED and label not in study.sent:
                with acquire(board.place(label) / "sending", poll_s=0.05):  # once, and whole
                    if not _mark(board, label, study).exists():
                        mine = trial_destination(board, label, study)
                        _publish_trial(board, label, trial, mine, shell)
                        write_atomic(_mark(board, label, study), b"")
                study.sent.add(label)
    except Exception as error:  # noqa: BLE001 - told; the trials are in the storage
        said = last_line(error)[:120]
        say(f"the tracking store cannot be reached ({said}): the same command sends it later")
        return False
    return True


def end(board: Board, study: TrialDestination, status: str) -> None:
    """End the study's run, and as KILLED those of trials that nobody works on any more.

    Raises:
        Exception: whatever MLflow raises when the store cannot be reached.
    """
    client = study.client()
    for label, trial in board.trials().items():
        if trial.state == TrialState.RUNNING:
            mine = trial_destination(board, label, study)
            client.set_terminated(mine.parent_id(), "KILLED")
    client.set_terminated(study.parent_id(), status)


def _mark(board: Board, label: str, study: TrialDestination) -> Path:
    """The file that says that a trial has arrived."""
    return board.place(label) / f"sent-{study.key}"


def _arrived(board: Board, study: TrialDestination) -> set[str]:
    """The trials that are marked as sent and really are in the store, which may be a new one."""
    marked = [label for label in board.trials() if _mark(board, label, study).exists()]
    if not marked:
        return set()
    query = f"tags.{names.STUDY} = '{board.study.key}' and tags.{names.STAGE} = '{TRIAL_STAGE}'"
    there, page = set[str](), None
    while page != "":
        found = study.client().search_runs([study.experiment_id()], query, page_token=page)
        there |= {run.data.tags[names.TRIAL] for run in found}
        page = found.token or ""
    for label in set(marked) - there:
        _mark(board, label, study).unlink()
    return there & set(marked)


def _publish_trial(
    board: Board, label: str, trial: FrozenTrial, destination: TrialDestination, shell: Shell
) -> None:
    """Params, the trial's own metrics, and links to and from its stage runs."""
    client, run_id = destination.client(), destination.parent_id()
    values: dict[str, dict[str, Any]] = trial.user_attrs.get(VALUES, {})
    stages = [
        stage_run
        for one in values.values()
        if (stage_run := _stage_run(one["key"], destination, shell)) is not None
    ]
    links = {names.STUDY: board.study.key, names.TRIAL: label, "trial_run": run_id}
    for stage_run in stages:
        client.log_batch(stage_run, tags=[RunTag(key, text) for key, text in links.items()])
    params = point_of(trial) | {"seeds": ",".join(values), "study": board.study.key}
    error = trial.user_attrs.get(ERROR)
    client.log_batch(
        run_id,
        params=[Param(key, spoken(value)) for key, value in params.items()],
        tags=[
            RunTag("stage_runs", ",".join(stages)),
            *([] if error is None else [RunTag(names.ERROR, error)]),
        ],
    )
    there = client.get_run(run_id).data.metrics
    metrics = {key: value for key, value in metrics_of(values).items() if key not in there}
    client.log_batch(
        run_id, metrics=[Metric(key, value, now_ms(), 0) for key, value in metrics.items()]
    )
    client.set_terminated(run_id, _ENDED[trial.state])


def _stage_run(key: str, destination: TrialDestination, shell: Shell) -> str | None:
    """The run of a finished student at the present destination, sent if it is not there; None
    where its folder was deleted before."""
    folder = shell.store.run("distill", key)
    if folder.result() is None:
        return Record.load(folder, destination).run_id
    return replay(folder, destination, log_model=shell.runtime.log_model)


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
        found[names.RUN_SECONDS] = sum(one["seconds"] for one in values.values())
    return found


def value_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a trial keeps of a finished run."""
    metrics = result["metrics"]
    return {
        "key": result["key"],
        "val": metrics.get(names.BEST_VAL_TOP1),
        "test": metrics.get(names.TEST_TOP1),
        "synergy": _last(result["history"], names.SYNERGY_RESTORED),
        "seconds": metrics[names.RUN_SECONDS],
    }


def _last(history: Iterable[dict[str, Any]], name: str) -> float | None:
    found = [entry["metrics"][name] for entry in history if name in entry["metrics"]]
    return found[-1] if found else None
