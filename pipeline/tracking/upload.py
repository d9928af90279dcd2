"""Upload of a run folder: bring its MLflow run up to date with the folder.

Every function can be repeated: nothing is sent twice. A record in the folder holds how much has
arrived. After a crash or a failed call the state of the tracking store decides.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from analysis import tags
from analysis.stores.address import redacted
from pipeline.storage.lease import Lease, acquire
from pipeline.storage.run_record import HistoryEntry, RunResult, RunSpec
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.description import description
from pipeline.tracking.target import TrackingTarget
from trainers import metrics

log = logging.getLogger("pipeline")

RECORD_PREFIX = "tracking-"
SPEC_FILE = "spec.json"  # the run's description, for readers without the run folder
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
PARAM_LENGTH = 6000
DATASET_DIGEST_LENGTH = 36  # the longest that MLflow stores


@dataclass
class UploadState:
    """What has arrived at one tracking target; kept in the run folder."""

    run_id: str | None = None
    epochs: int = 0  # of the history, that have arrived
    described: bool = False  # params, tags, inputs, configuration
    finished: bool = False
    where: str = ""  # the store, without password
    experiment: str = ""  # name, or "#" and id
    launch_id: str | None = None  # the run that this one is a child of
    verb: str = ""  # of the command that trained it
    command: str = ""  # which call of that verb: runs of one call share a launch run

    @staticmethod
    def name(target: TrackingTarget) -> str:
        return f"{RECORD_PREFIX}{target.key}"

    @classmethod
    def load(cls, folder: RunFolder, target: TrackingTarget) -> UploadState:
        body = folder.read_json(cls.name(target))
        if body is not None:
            return cls(**body)
        where, launch = redacted(target.uri), target.launch_id
        return cls(
            where=where,
            experiment=target.experiment,
            launch_id=launch,
            verb=target.verb,
            command=target.command,
        )

    def save(self, folder: RunFolder, target: TrackingTarget) -> None:
        folder.write_json(self.name(target), asdict(self))


class RunUpload:
    """Upload of one run folder to one tracking target, by the holder of the folder's lease.

    Every call raises LeaseLost once the lease is lost or released: whoever holds it next sends the
    rest, and a late call would set a finished run back to RUNNING.
    """

    def __init__(self, folder: RunFolder, target: TrackingTarget, lease: Lease) -> None:
        self.folder, self.target, self.lease = folder, target, lease
        self.record = UploadState.load(folder, target)
        self.sure = False  # whether the record is known to be all that has arrived

    @property
    def client(self) -> Any:
        self.lease.check()
        return self.target.client()

    def start(self, *, reused: bool = False) -> None:
        """Find or make the run, and describe it."""
        spec = self._spec()
        if (
            self.record.run_id is not None
            and not self.sure
            and is_gone(self.client, self.record.run_id)
        ):
            log.warning("run %s was deleted from the store: sent again", self.record.run_id)
            old = self.record
            self.record = replace(
                old,
                run_id=None,
                epochs=0,
                described=False,
                finished=False,
                launch_id=self.target.launch_id,
            )
        if self.record.run_id is None:
            self.record.run_id = self._find(spec) or self._create(spec, reused)
            self._save()
        elif not self.sure and not self.record.finished:
            self.client.update_run(self.record.run_id, status="RUNNING")
        if not self.record.described:
            self._describe(spec)
            self.record.described = True
            self._save()

    def epochs(self, history: list[HistoryEntry]) -> None:
        """Send the epochs that have not arrived."""
        while not self.record.finished and self.record.epochs < len(history):
            batch: list[Any] = []
            count = 0
            for entry in history[self.record.epochs :]:
                if batch and len(batch) + len(entry["metrics"]) > METRICS_A_CALL:
                    break
                batch += _metrics(entry["metrics"], entry["index"], entry["time"])
                count += 1
            self._send(batch)
            self.record.epochs += count
            self._save()

    def finish(self, result: RunResult, *, log_model: bool) -> None:
        """Final metrics, tags, weights and the model; then the run is FINISHED."""
        self.start()
        if self.record.finished:
            return
        self.epochs(result.history)
        last = max((entry["index"] for entry in result.history), default=0)
        self.sure = False  # these have no count of their own in the record: ask the store
        self._send(_metrics(self._counted(result.metrics), last, result.time))
        self._set_tags(result.tags | {tags.NOTE: description(self._spec(), result)})
        self._files(result, log_model)
        # When it ended, not when it was sent: one that is replayed would seem to take hours.
        self.client.set_terminated(self.record.run_id, "FINISHED", result.time)
        self.record.finished = True
        self._save()

    def stop(self, status: str, tags: dict[str, str]) -> None:
        """End a run that is not finished: FAILED, or KILLED where it can be resumed."""
        self.start()
        if self.record.finished:
            return
        self._set_tags(tags)
        self.client.set_terminated(self.record.run_id, status)

    def _counted(self, values: dict[str, float]) -> dict[str, float]:
        """With the present count of test readings: `evaluate` may have read since the end."""
        reads = float(self.folder.test_reads())
        return values | {k: max(v, reads) for k, v in values.items() if k == metrics.TEST_READS}

    def _spec(self) -> RunSpec:
        spec = self.folder.spec()
        assert spec is not None, f"{self.folder.path} has no spec"
        return spec

    def _save(self) -> None:
        self.lease.check()
        self.record.save(self.folder, self.target)

    def _find(self, spec: RunSpec) -> str | None:
        """A run of this key that is finished, or that this very folder began."""
        runs = self.client.search_runs(
            [self.target.experiment_id()],
            f"tags.{tags.RUN_KEY} = '{self.folder.key}' and tags.{tags.STAGE} = "
            f"'{self.folder.stage}'",
        )
        for run in runs:
            if run.info.status == "FINISHED":
                self.record.finished, self.record.described = True, True
                return str(run.info.run_id)
        for run in runs:
            if run.data.tags.get("folder") == spec.folder:
                return str(run.info.run_id)
        return None

    def _create(self, spec: RunSpec, reused: bool) -> str:
        self.record.launch_id = self.target.parent_id()
        run_tags = spec.tags | {"folder": spec.folder, tags.PARENT: self.record.launch_id}
        if reused:
            run_tags[tags.REUSED] = "true"
        run = self.client.create_run(
            self.target.experiment_id(),
            start_time=spec.time,
            tags=run_tags,
            run_name=spec.name,
        )
        self.sure = True  # nothing can have arrived yet
        return str(run.info.run_id)

    def _describe(self, spec: RunSpec) -> None:
        from mlflow.entities import Param

        run_id = self.record.run_id
        params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in spec.params.items()]
        for at in range(0, len(params), PARAMS_A_CALL):
            self.client.log_batch(run_id, params=params[at : at + PARAMS_A_CALL])
        for name, text in spec.texts.items():
            self.client.log_text(run_id, text, name)
        record = {key: value for key, value in spec.to_json().items() if key != "texts"}
        self.client.log_dict(run_id, record, SPEC_FILE)
        log_data(self.client, str(run_id), spec.data, "training")

    def _send(self, batch: list[Any]) -> None:
        """Send metrics; where it is not sure what has arrived, only those that have not."""
        run_id = self.record.run_id
        if not self.sure:
            there = {
                (key, metric.step)
                for key in {metric.key for metric in batch}
                for metric in self.client.get_metric_history(run_id, key)
            }
            batch = [metric for metric in batch if (metric.key, metric.step) not in there]
        self.sure = False
        for at in range(0, len(batch), METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=batch[at : at + METRICS_A_CALL])
        self.sure = True

    def _set_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(
            self.record.run_id, tags=[RunTag(k, str(v)[:5000]) for k, v in tags.items()]
        )

    def _files(self, result: RunResult, log_model: bool) -> None:
        """The weights as safetensors and, for a student, an MLflow model (once)."""
        run_id = self.record.run_id
        for name, digest in result.weights.items():
            path = self.folder.tensors_path(name, digest)
            self.client.log_artifact(run_id, str(path), "weights")
        if not log_model or "student" not in result.weights:
            return
        outputs = self.client.get_run(run_id).outputs
        if outputs is None or not outputs.model_outputs:
            from pipeline.tracking.model_export import log_student

            log_student(self.folder, self._spec(), result, self.target, str(run_id))


def replay(folder: RunFolder, target: TrackingTarget, *, log_model: bool) -> str:
    """The id of a finished run at a tracking target, sent where it is missing: whole, and once
    however many processes call this at the same time.

    Raises:
        MlflowException: the store cannot be reached.
    """
    record = UploadState.load(folder, target)
    if record.finished and record.run_id and not is_gone(target.client(), record.run_id):
        return record.run_id
    result = folder.result()
    assert result is not None, f"{folder.path} is not finished"
    with acquire(folder.path, poll_s=0.05) as lease:
        upload = RunUpload(folder, target, lease)  # with what another has sent meanwhile
        upload.start(reused=True)
        upload.finish(result, log_model=log_model)
    return str(upload.record.run_id)


def records(folder: RunFolder, target: TrackingTarget) -> list[UploadState]:
    """What has arrived, or is due, in any experiment of a target's store."""
    paths = sorted(folder.path.glob(f"{RECORD_PREFIX}*.json"))
    found = [UploadState(**body) for p in paths if (body := folder.read_json(p.stem)) is not None]
    return [record for record in found if record.where == redacted(target.uri)]


def arrived(folder: RunFolder, target: TrackingTarget) -> list[str]:
    """The ids of the finished runs of a folder in all experiments of a target's store: first where
    it was trained, then where it was reused."""
    client = target.client()
    finished = {r.run_id: r for r in records(folder, target) if r.finished and r.run_id}
    there = {run_id: r.experiment for run_id, r in finished.items() if not is_gone(client, run_id)}
    reused = {run_id: tags.REUSED in client.get_run(run_id).data.tags for run_id in there}
    return sorted(there, key=lambda run_id: (reused[run_id], there[run_id], run_id))


def is_gone(client: Any, run_id: str) -> bool:
    """Whether a run was deleted from the store, or the store itself was."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise
    return bool(run.info.lifecycle_stage == "deleted")


def _metrics(values: dict[str, float], step: int, time_ms: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(key, float(value), time_ms, step) for key, value in values.items()]


def log_data(client: Any, run_id: str, data: dict[str, str], context: str) -> None:
    """The data set (name, digest) as an input of a run; `context` is its use."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, digest = data["name"], data["digest"][:DATASET_DIGEST_LENGTH]
    found = Dataset(name, digest, source_type="code", source=json.dumps({"data.name": name}))
    client.log_inputs(run_id, [DatasetInput(found, [InputTag("mlflow.data.context", context)])])


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


def flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values of nested dicts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
