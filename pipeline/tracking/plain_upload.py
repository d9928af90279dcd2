"""Runs without a run folder in the tracking store: made, compared and mended by their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from analysis import tags
from analysis.stores.protocol import StoreReader
from pipeline.outcome import KILLED
from pipeline.storage.atomic import sha256
from pipeline.tracking.artifacts import Artifacts
from pipeline.tracking.audit import LACKS, RIGHT, Expected, compared, tracked_runs
from pipeline.tracking.creation import delete_extras, is_gone, only_run, same_runs, source_tags
from pipeline.tracking.plain_runs import EVALUATE_STAGE, REPORT_STAGE, PlainRun
from pipeline.tracking.run_writer import PARAM_LENGTH, TAG_LENGTH, RunWriter
from pipeline.tracking.values import points_of

RUNNING = "RUNNING"
_STUDENTS = "stage_runs"  # tag of a trial: the runs of its students


class PlainUpload:
    """Upload of one such run to an experiment of its store."""

    def __init__(self, run: PlainRun, client: Any, experiment_id: str) -> None:
        self.run, self.client, self.experiment_id = run, client, experiment_id

    def open(self) -> str:
        """The id of the run, which is made, once, where it is absent.

        Raises:
            Exception: whatever MLflow raises when the store cannot be reached.
        """
        run = self.run
        if run.run_id is None or is_gone(self.client, run.run_id):
            parent = {} if run.parent is None else {tags.PARENT: run.parent}
            every = source_tags() | run.tags | run.identity | parent
            found = only_run(
                self.client,
                self.experiment_id,
                run.identity,
                lambda: self.client.create_run(self.experiment_id, tags=every, run_name=run.name),
            )
            run.is_now(found)
        return str(run.run_id)

    def begin(self) -> str:
        """As `open`, for a run whose process works on it (again)."""
        run_id = self.open()
        if self.client.get_run(run_id).info.status != RUNNING:
            self.client.update_run(run_id, status=RUNNING)
        return run_id

    def send(self) -> None:
        """Make the run in the store equal to its record, which has an end."""
        run, run_id = self.run, self.open()
        writer = RunWriter(lambda: self.client, run_id)
        if run.params:
            writer.description(run.params, run.data, use=run.tags.get(tags.SPLIT, ""))
        writer.metrics(writer.lacking(points_of(run.numbers, 0, run.time or 0)))
        parent = {} if run.parent is None else {tags.PARENT: run.parent}
        writer.tags(run.tags | run.identity | parent | self._links())
        self.send_files()
        writer.end(run.status or KILLED, run.time)
        delete_extras(self.client, self.experiment_id, run.identity, run_id)

    def send_files(self) -> None:
        """Send the files of the run that are lacking."""
        if lacking := self.lacking_files():
            repository = self._artifacts().repository
            for name in lacking:
                repository.log_artifact(str(self.run.files_folder / name))

    def lacking_files(self, *, read: bool = False) -> list[str]:
        """The names of files that are absent in the store, or differ there from the record's."""
        if not self.run.files:
            return []
        artifacts = self._artifacts(read=read)
        found = artifacts.sizes()
        return [
            path.name
            for path in sorted(self.run.files_folder.iterdir())
            if not artifacts.is_same(path.name, path.stat().st_size, sha256(path), found)
        ]

    def _artifacts(self, *, read: bool = False) -> Artifacts:
        info = self.client.get_run(self.run.run_id).info
        return Artifacts(info.artifact_uri, self.client.tracking_uri, read=read)

    def _links(self) -> dict[str, str]:
        """The links from a trial to the runs of its students, and the links back."""
        trial, found = self.run, []
        if not trial.students:
            return {}
        back = {name: trial.tags[name] for name in (tags.STUDY, tags.TRIAL)}
        for key in trial.students:
            wanted = {tags.STAGE: "distill", tags.RUN_KEY: key}
            for student in same_runs(self.client, self.experiment_id, wanted)[:1]:
                links = back | {"trial_run": str(trial.run_id)}
                RunWriter(lambda: self.client, student).tags(links)
                found.append(student)
        return {_STUDENTS: ",".join(found)}

    def make_again(self) -> None:
        """Replace a run with something wrong by one that is right, which takes over its
        children."""
        old = str(self.run.run_id)
        self.client.delete_run(old)
        self.send()
        for child in same_runs(self.client, self.experiment_id, {tags.PARENT: old}):
            self.client.set_tag(child, tags.PARENT, str(self.run.run_id))

    def adopt(self, parent_of: Callable[[str], str]) -> None:
        """The parent as the store has it now: its id changes where it was made again."""
        run = self.run
        if run.stage == EVALUATE_STAGE:
            wanted = {tags.RUN_KEY: run.tags.get(tags.EVALUATED, "")}
            found = same_runs(self.client, self.experiment_id, wanted)
            if found and run.parent not in found:
                run.parent = found[0]
                return
        if run.parent is not None:
            run.parent = parent_of(run.parent)


def differences(
    runs: Iterable[PlainRun], store: StoreReader, experiment_id: str, *, links: bool = False
) -> dict[str, str]:
    """What is to be done with the runs of one experiment, by file of the record: right, lacks,
    wrong. `links`: from trials to their students, too, which have arrived."""
    rows, listed = store.runs(experiment_id), list(runs)
    ids = {run.run_id for run in listed if run.run_id}
    there = tracked_runs(store, experiment_id, ids, rows)
    known = {key: run_id for run_id, name, key in rows.tags if name == tags.RUN_KEY}
    found = {}
    for run in listed:
        tracked = there.get(run.run_id or "")
        students = [known[key] for key in run.students if key in known] if links else []
        if tracked is None:
            kind = LACKS
        elif run.stage == REPORT_STAGE:  # its files are known to the store alone: never made again
            kind = RIGHT if compared(tracked, _expected(run), points=False) == RIGHT else LACKS
        else:
            kind = compared(tracked, _expected(run))
            if kind == RIGHT and students and tracked.tags.get(_STUDENTS) != ",".join(students):
                kind = LACKS
        found[str(run.file)] = kind
    return found


def _expected(run: PlainRun) -> Expected:
    parent = {} if run.parent is None else {tags.PARENT: run.parent}
    return Expected(
        {(name, 0): value for name, value in run.numbers.items()},
        {name: str(value)[:PARAM_LENGTH] for name, value in run.params.items()},
        {k: str(v)[:TAG_LENGTH] for k, v in (run.tags | run.identity | parent).items()},
        (run.status or KILLED,),
        run.time,
    )
