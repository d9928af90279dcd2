"""The part of `sync` for runs without a run folder: compared with their records, and mended."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from analysis.runs import opened
from analysis.stores.address import redacted
from pipeline.cli.console import say
from pipeline.outcome import KILLED, last_line
from pipeline.storage.free_leases import free_leases
from pipeline.storage.lease import Lease, Watch
from pipeline.tracking.audit import RIGHT, WRONG, deleted_experiments
from pipeline.tracking.creation import is_gone, same_runs
from pipeline.tracking.plain_runs import (
    EVALUATE_STAGE,
    LAUNCH_STAGE,
    REPORT_STAGE,
    STUDY_STAGE,
    TRIAL_STAGE,
    PlainRun,
    damaged,
    plain_runs,
    read,
)
from pipeline.tracking.plain_upload import RUNNING, PlainUpload, differences
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload_state import UploadState


class Patience(NamedTuple):
    """How long a lease of another host is watched, and whether to stop."""

    heartbeat_s: float
    expiry_s: float
    should_stop: Callable[[], bool]


class PlainSync:
    """All runs without a run folder of one store. `read`: contents of files are compared though
    they have to be downloaded."""

    def __init__(self, target: TrackingTarget, patience: Patience, *, read: bool = False) -> None:
        self.target, self._patience, self._read = target, patience, read
        self.runs = plain_runs(target.lock_folder, redacted(target.uri))
        self._damaged = damaged(target.lock_folder)

    def parents(self, failed: list[str]) -> int:
        """Mend launches, studies and trials, whose children follow; the number of runs that had to
        be."""
        self._end_damaged()
        return self._mend((LAUNCH_STAGE, STUDY_STAGE, TRIAL_STAGE), failed, links=False)

    def children(self, failed: list[str]) -> int:
        """Mend links from trials to their students, evaluations and reports."""
        return self._mend((TRIAL_STAGE, EVALUATE_STAGE, REPORT_STAGE), failed, links=True)

    def now(self, run_id: str) -> str:
        """The present id of a run, which changes where it was made again."""
        for run in self.runs:
            if run_id in run.former and run.run_id is not None:
                return run.run_id
        return run_id

    def launch_of(self, record: UploadState) -> str | None:
        """The launch, or trial, that a stage run is a child of, as far as it is known here."""
        if record.launch_id is not None:
            return self.now(record.launch_id)
        where = (LAUNCH_STAGE, record.command, record.experiment)
        found = [r for r in self.runs if (r.stage, r.command, r.experiment) == where]
        return found[0].run_id if found else None

    def _mend(self, stages: tuple[str, ...], failed: list[str], *, links: bool) -> int:
        by_experiment: dict[str, list[PlainRun]] = defaultdict(list)
        for run in self.runs:
            if run.stage in stages:
                by_experiment[run.experiment].append(run)
        sent, store = 0, opened(self.target.uri) if by_experiment else None
        gone = deleted_experiments(store) if store is not None else set()
        for experiment, runs in by_experiment.items():
            if experiment in gone:
                continue
            kinds = self._kinds(experiment, runs, links=links)
            for run, lease in self._free(self._due(runs, kinds)):
                with lease:
                    try:
                        sent += self._one(run, kinds[str(run.file)])
                    except Exception as error:  # noqa: BLE001 - reported; one run stops no other
                        say(f"failed   {run.name}: {last_line(error)}")
                        failed.append(run.name)
        return sent

    def _end_damaged(self) -> None:
        """Remove records that cannot be read. Their runs are as the store has them, and KILLED
        where they seem to run and no process works on them."""
        client = self.target.client()
        files = [((file, run_tags), file.parent) for file, run_tags in self._damaged.items()]
        for (file, run_tags), lease in free_leases(files, **self._patience._asdict()):
            with lease:
                for experiment in client.search_experiments():
                    for run_id in same_runs(client, experiment.experiment_id, run_tags):
                        if client.get_run(run_id).info.status == RUNNING:
                            client.set_terminated(run_id, KILLED)
                shutil.rmtree(file) if file.is_dir() else file.unlink()
                say(f"removed  {file}: damaged; its run is left as the tracking store has it")

    def _kinds(self, experiment: str, runs: list[PlainRun], *, links: bool) -> dict[str, str]:
        number = self.target.elsewhere(experiment).experiment_id()
        return differences(runs, opened(self.target.uri), number, links=links)

    def _due(self, runs: list[PlainRun], kinds: dict[str, str]) -> list[PlainRun]:
        return [
            run
            for run in runs
            if run.status is None or kinds[str(run.file)] != RIGHT or self._lacks_files(run)
        ]

    def _lacks_files(self, run: PlainRun) -> bool:
        return run.files and bool(self.target.upload(run).lacking_files(read=self._read))

    def _free(self, runs: Iterable[PlainRun]) -> Iterable[tuple[PlainRun, Lease]]:
        folders = [(run, run.lease_folder) for run in runs]
        return free_leases(folders, **self._patience._asdict())

    def _one(self, run: PlainRun, kind: str) -> bool:
        """Mend one run; whether there was anything to do. Its process may have ended it since."""
        if (known := read(run.file)) is None:
            return False
        vars(run).update(vars(known))
        upload, word = self.target.upload(run), "repaired" if kind == WRONG else "sent    "
        if run.stage in (EVALUATE_STAGE, REPORT_STAGE) and self._is_nothing(run, upload):
            run.remove()
            return False
        if run.status is None:
            if run.stage == STUDY_STAGE and self._has_workers(run):
                return False
            word = "ended   "
            run.ended(KILLED, {})
        upload.adopt(self.now)
        upload.make_again() if kind == WRONG else upload.send()
        run.save()
        say(f"{word} {run.name}  {run.status}")
        return True

    def _is_nothing(self, run: PlainRun, upload: PlainUpload) -> bool:
        """Whether a run has neither arrived nor ended, or is a report that was deleted: its files
        are in its folder, and its command makes it again."""
        if run.run_id is None and run.status is None:
            return not same_runs(upload.client, upload.experiment_id, run.identity)
        if run.stage == REPORT_STAGE and run.run_id is not None:
            return is_gone(upload.client, run.run_id)
        return False

    def _has_workers(self, study: PlainRun) -> bool:
        """Whether a process runs a trial of a study."""
        trials = [run for run in self.runs if run.stage == TRIAL_STAGE and run.is_of(study)]
        return any(not _is_free(run.lease_folder) for run in trials if run.status is None)


def _is_free(folder: Path) -> bool:
    watch = Watch()
    watch.look(folder)
    return watch.is_free
