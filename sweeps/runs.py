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
from pipeline.publish import Publication, Record, last_line, now_ms
from pipeline.shell import Shell
from sweeps.board import Board, point_of
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
    experiment = destination.experiment_id()
    with acquire(place / "tracking", poll_s=0.05):
        if path.is_file():
            return str(json.loads(path.read_text())["run_id"])
        wanted = {k: tags[k] for k in (names.STAGE, names.STUDY, names.TRIAL) if k in tags}
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
        found = client.search_runs([experiment], query)
        if found:
            run_id = found[0].info.run_id
        else:
            more = {} if parent is None else {names.PARENT: parent}
            run_id = client.create_run(experiment, tags=tags | more, run_name=name).info.run_id
        write_atomic(path, json.dumps({"run_id": run_id}).encode())
        return str(run_id)


def publish(board: Board, study: TrialDestination, shell: Shell) -> bool:
    """Send every ended trial that has not arrived; False where the store cannot be reached."""
    try:
        for label, trial in board.trials().items():
            done = board.place(label) / f"sent-{study.key}"
            if trial.state not in _ENDED or done.exists():
                continue
            _publish_trial(board, label, trial, trial_destination(board, label, study), shell)
            write_atomic(done, b"")
    except Exception as error:  # noqa: BLE001 - told; the trials are in the storage
        say(f"the tracking store cannot be reached ({last_line(error)[:120]}): sent later")
        return False
    return True


def _publish_trial(
    board: Board, label: str, trial: FrozenTrial, destination: TrialDestination, shell: Shell
) -> None:
    """Params, the trial's own metrics, and links to and from its stage runs."""
    client, run_id = destination.client(), destination.parent_id()
    values: dict[str, dict[str, Any]] = trial.user_attrs.get(VALUES, {})
    stages = [_stage_run(one["key"], destination, shell) for one in values.values()]
    links = {names.STUDY: board.study.key, names.TRIAL: label, "trial_run": run_id}
    for stage_run in stages:
        for key, text in links.items():
            client.set_tag(stage_run, key, text)
    params = point_of(trial) | {"seeds": ",".join(values), "study": board.study.key}
    client.log_batch(
        run_id,
        params=[Param(key, spoken(value)) for key, value in params.items()],
        tags=[
            RunTag("stage_runs", ",".join(stages)),
            *(RunTag(names.ERROR, text) for text in [trial.user_attrs.get("error")] if text),
        ],
    )
    there = client.get_run(run_id).data.metrics
    metrics = {key: value for key, value in metrics_of(values).items() if key not in there}
    client.log_batch(
        run_id, metrics=[Metric(key, value, now_ms(), 0) for key, value in metrics.items()]
    )
    client.set_terminated(run_id, _ENDED[trial.state])


def _stage_run(key: str, destination: TrialDestination, shell: Shell) -> str:
    """The run of a finished student at the present destination, sent if it is not there."""
    folder = shell.store.run("distill", key)
    record = Record.load(folder, destination)
    result = folder.result()
    if result is not None and not record.finished:
        publication = Publication(folder, destination)
        publication.start(reused=True)
        publication.finish(result, log_model=shell.runtime.log_model)
        record = publication.record
    assert record.run_id is not None, f"distill {key} has not arrived"
    return record.run_id


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


def value_of(key: str, result: dict[str, Any]) -> dict[str, Any]:
    """What a trial keeps of a finished run."""
    metrics = result["metrics"]
    return {
        "key": key,
        "val": metrics.get(names.BEST_VAL_TOP1),
        "test": metrics.get(names.TEST_TOP1),
        "synergy": _last(result["history"], names.SYNERGY_RESTORED),
        "seconds": metrics[names.RUN_SECONDS],
    }


def _last(history: Iterable[dict[str, Any]], name: str) -> float | None:
    found = [entry["metrics"][name] for entry in history if name in entry["metrics"]]
    return found[-1] if found else None
