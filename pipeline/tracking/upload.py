"""Upload of a run folder: bring its MLflow run up to date with the folder.

Every function can be repeated: nothing is sent twice. A record in the folder holds how much has
arrived. After a crash or a failed call the state of the tracking store decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from analysis import tags
from pipeline.outcome import last_line
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.lease import Lease, LeaseLost
from pipeline.storage.run_record import HistoryEntry, RunResult, RunSpec
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.creation import (
    delete_extras,
    is_gone,
    only_run,
    same_runs,
    source_tags,
)
from pipeline.tracking.description import description
from pipeline.tracking.run_files import RunFiles
from pipeline.tracking.run_writer import RunWriter
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload_state import UploadState
from pipeline.tracking.values import points_of
from trainers import metrics

log = logging.getLogger("pipeline")


class RunUpload:
    """Upload of one run folder to one tracking target, by the holder of the folder's lease.

    Every call raises LeaseLost once the lease is lost or released: the next holder sends the
    rest, and a late call would set a finished run back to RUNNING.
    """

    def __init__(self, folder: RunFolder, target: TrackingTarget, lease: Lease) -> None:
        self.folder, self.target, self.lease = folder, target, lease
        self.record = UploadState.load(folder, target)
        self.sure = False  # whether the record is known to be all that has arrived
        self._reported = False  # that files are refused

    @property
    def client(self) -> Any:
        self.lease.check()
        return self.target.client()

    def start(self) -> None:
        """Find or make the run, and describe it."""
        spec = self._spec()
        if not self.sure and self.record.run_id is not None:
            self._look_again()
        if self.record.run_id is None:
            self.record.run_id = self._find() or self._create(spec)
            self._save()
        if not self.record.described:
            self._describe(spec)
            self.record.described = True
            self._save()

    def _look_again(self) -> None:
        """The run as the store has it: it may have been deleted, or ended by an earlier process."""
        old, run_id = self.record, str(self.record.run_id)
        if is_gone(self.client, run_id):
            log.warning("run %s was deleted from the store: sent again", run_id)
            self.record = replace(
                old,
                run_id=None,
                epochs=0,
                described=False,
                finished=False,
                files=False,
                launch_id=self.target.launch_id,
            )
        elif old.finished and self._has_former_life(run_id):
            self._make_again(run_id)
        elif not old.finished and self.client.get_run(run_id).info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")

    def epochs(self, history: list[HistoryEntry]) -> None:
        """Send the epochs that have not arrived."""
        start = self.record.epochs if self.sure else 0
        if self.record.finished or (self.sure and start >= len(history)):
            return
        points = [
            point
            for entry in history[start:]
            for point in points_of(entry["metrics"], entry["index"], entry["time"])
        ]
        self._send(points if self.sure else self._writer.lacking(points))
        self.record.epochs, self.sure = len(history), True
        self._save()

    def finish(self, result: RunResult, *, log_model: bool) -> None:
        """Final metrics, tags and files; then the run is FINISHED."""
        self.start()
        if self.record.finished and self.record.files:
            self._stored(lambda: self.register(result))
            return
        last = max((entry["index"] for entry in result.history), default=0)
        if not self.record.finished:
            self.epochs(result.history)
            values = points_of(self._counted(result.metrics), last, result.time)
            self._send(self._writer.lacking(values))
            self._count_reads(last)
            spec = self._spec()
            self._writer.tags(spec.tags | result.tags | {tags.NOTE: description(spec, result)})
        if not self.record.files:
            self.record.files = self._stored(lambda: self._send_files(result, last, log_model))
            self.record.model = self.record.files and log_model and "student" in result.weights
        # When it ended, not when it was sent: one that is replayed would seem to take hours.
        self._writer.end("FINISHED", result.time)
        self.record.finished = True
        self._only()
        self._save()
        self._stored(lambda: self.register(result))

    def _send_files(self, result: RunResult, step: int, log_model: bool) -> None:
        files = self._files()
        files.send(result, step, log_model=log_model)
        self.record.model_files = dict(files.model)

    def lacks_files(self, result: RunResult | None, *, read: bool) -> bool:
        """Whether files that were sent are absent in the artifact store, or differ there from the
        run folder; `read`: contents are compared though they have to be downloaded."""
        spec, run = self._spec(), self._run()
        model = self.record.model_files
        files = RunFiles(self.folder, spec, self.target, run, model=model, read=read)
        return bool(files.lacking(result, log_model=self.record.model))

    def mend(self, *, again: bool) -> None:
        """Take nothing for granted of what has arrived; with `again`, make the run again."""
        old = self.record.run_id
        self.record = replace(self.record, epochs=0, described=False, finished=False, files=False)
        if again and old is not None:
            self._make_again(old)

    def _make_again(self, old: str) -> None:
        """Replace a run by an empty one, which takes over its children (evaluations)."""
        self.record = replace(
            self.record, run_id=None, epochs=0, described=False, finished=False, files=False
        )
        self.client.delete_run(old)
        new = self.record.run_id = self._create(self._spec())
        self._save()
        for child in same_runs(self.client, self.target.experiment_id(), {tags.PARENT: old}):
            self.client.set_tag(child, tags.PARENT, new)

    def _has_former_life(self, run_id: str) -> bool:
        """Whether a finished run is of this folder, which is being trained again."""
        return self.folder.result() is None and self._is_own(run_id)

    def _is_own(self, run_id: str) -> bool:
        """Whether a run is of this folder, not of another folder of the same key."""
        name = self.client.get_run(run_id).data.tags.get("folder")
        return name in (None, self._spec().folder)

    def stop(self, status: str, tags: dict[str, str]) -> None:
        """End a run that is not finished: FAILED, or KILLED where it can be resumed."""
        self.start()
        if self.record.finished:
            return
        self._writer.tags(self._spec().tags | tags)
        self._writer.end(status, None)
        self._only()

    def _counted(self, values: dict[str, float]) -> dict[str, float]:
        """With the present count of test readings: `evaluate` may have read since the end."""
        reads = float(self.folder.test_reads())
        return values | {k: max(v, reads) for k, v in values.items() if k == metrics.TEST_READS}

    def _count_reads(self, step: int) -> None:
        """Send the count of test readings where the store has a smaller one."""
        name, reads = metrics.TEST_READS, float(self.folder.test_reads())
        history = self.client.get_metric_history(self.record.run_id, name)
        if history and max(metric.value for metric in history) < reads:
            self.client.log_metric(self.record.run_id, name, reads, step=step)

    def _spec(self) -> RunSpec:
        spec = self.folder.spec()
        assert spec is not None, f"{self.folder.path} has no spec"
        return spec

    def _save(self) -> None:
        self.lease.check()
        self.record.save(self.folder, self.target)

    def _find(self) -> str | None:
        """A finished run of this key, whichever folder it is of."""
        wanted = {tags.RUN_KEY: self.folder.key, tags.STAGE: self.folder.stage}
        for run_id in same_runs(self.client, self.target.experiment_id(), wanted):
            if self.client.get_run(run_id).info.status == "FINISHED":
                if self._has_former_life(run_id):
                    self._make_again(run_id)
                    return self.record.run_id
                self.record.finished = self.record.described = self.record.files = True
                return run_id
        return None

    def _identity(self) -> dict[str, str]:
        """The tags that no run of another folder has."""
        return {
            tags.RUN_KEY: self.folder.key,
            tags.STAGE: self.folder.stage,
            "folder": self._spec().folder,
        }

    def _create(self, spec: RunSpec) -> str:
        self.record.launch_id, self.record.folder = self.target.parent_id(), spec.folder
        parent = {tags.PARENT: self.record.launch_id}
        run_tags = source_tags() | spec.tags | self._identity() | parent
        if self.record.reused:
            run_tags[tags.REUSED] = "true"
        client, experiment = self.client, self.target.experiment_id()
        return only_run(
            client,
            experiment,
            self._identity(),
            lambda: client.create_run(
                experiment, start_time=spec.time, tags=run_tags, run_name=spec.name
            ),
        )

    def _only(self) -> None:
        """Delete what a repeated request has made next to the run, also when it came late."""
        if self._identity()["folder"]:  # absent in runs of an older version
            experiment, known = self.target.experiment_id(), str(self.record.run_id)
            delete_extras(self.client, experiment, self._identity(), known)

    def _describe(self, spec: RunSpec) -> None:
        self._writer.description(spec.params, spec.data)
        self._stored(lambda: self._files().send_texts())

    def _files(self) -> RunFiles:
        """The files of the run, at the address that the run has; MLflow's client would go on with
        whatever it was answered first."""
        self.lease.check()
        model = self.record.model_files
        return RunFiles(self.folder, self._spec(), self.target, self._run(), model=model)

    def _run(self) -> Any:
        """The run as the store has it."""
        return self._writer.run()

    @property
    def _writer(self) -> RunWriter:
        return RunWriter(lambda: self.client, str(self.record.run_id))

    def _send(self, points: list[Any]) -> None:
        self.sure = False
        self._writer.metrics(points)

    def _stored(self, send: Callable[[], None]) -> bool:
        """Whether files were stored. Where they cannot be, that is reported, and parameters,
        metrics and the status are sent all the same."""
        try:
            send()
        except LeaseLost:
            raise
        except CorruptFile as error:
            log.warning(
                "%s; the files of %s are not sent before its command has been run again",
                error,
                self._spec().name,
            )
            return False
        except Exception as error:  # noqa: BLE001 - reported; `sync` sends them
            if not self._reported:
                self._reported = True
                log.warning(
                    "the artifact store does not take the files of %s (%s); parameters, metrics "
                    "and status are sent; python -m pipeline sync sends the files",
                    self._spec().name,
                    last_line(error).split("\n")[0][:200],
                )
            return False
        return True

    def register(self, result: RunResult) -> None:
        """Register the student of a finished run, where the target has a name for it."""
        if self.target.register is not None and "student" in result.weights:
            from pipeline.tracking.model_export import register

            self.lease.check()
            register(self.target, str(self.record.run_id))
