"""The sync verb: make the tracking store equal to the run folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from analysis.runs import opened
from analysis.stores.address import redacted
from analysis.stores.protocol import StoreReader
from analysis.words import counted
from pipeline.cli.console import say
from pipeline.config import ConfigError, compose
from pipeline.outcome import FINISHED, KILLED, JobsFailed, last_line
from pipeline.session import Session
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.free_leases import free_leases
from pipeline.storage.lease import Lease
from pipeline.storage.run_record import HistoryEntry, RunResult
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import AWAY
from pipeline.tracking.audit import (
    LACKS,
    RIGHT,
    WRONG,
    TrackedRun,
    deleted_experiments,
    judged,
    tracked_runs,
)
from pipeline.tracking.plain_sync import Patience, PlainSync
from pipeline.tracking.restore import whole_spec
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload import RunUpload
from pipeline.tracking.upload_state import UploadState, other_targets, records
from trainers import metrics

RUNNING = "RUNNING"
CONTENTS = "contents="  # option of the verb


class Due(NamedTuple):
    """A run of the store at one target."""

    folder: RunFolder
    record: UploadState


def sync_command(overrides: list[str]) -> None:
    """`sync runtime.store=FOLDER contents=true|false`.

    Raises:
        ConfigError: unknown options, or a tracking store that refuses.
        JobsFailed: the tracking store is away, or some runs could not be sent.
    """
    given = [text.removeprefix(CONTENTS) for text in overrides if text.startswith(CONTENTS)]
    rest = [text for text in overrides if not text.startswith(CONTENTS)]
    if (read := (given or ["false"])[-1]) not in ("true", "false"):
        raise ConfigError([f"{CONTENTS}{read}: unknown (allowed: true, false)"])
    with Session.open(compose(rest), "sync", rest).launch() as session:
        sync(session, read=read == "true")


def sync(session: Session, *, read: bool = False) -> None:
    """Compare every run of the store with the tracking store, and send or repair what differs, in
    the experiment and launch run that it belongs to. Runs that a process works on are left to it;
    one whose process is gone becomes KILLED.

    Files are compared by name and size, and by content where the artifact store is a folder of
    this machine, or with `read`, which downloads them.
    """
    answer = acceptance(session.target)
    if answer.kind == AWAY:
        raise JobsFailed(f"{answer.sentence}: nothing was sent; run the same command later")
    runtime = session.runtime
    patience = Patience(runtime.heartbeat_s, runtime.expiry_s, session.stop)
    plain = PlainSync(session.target, patience, read=read)
    failed, targets = list[str](), _Targets(session, plain)
    sent = plain.parents(failed)
    try:
        for due in _different(session):
            with due.lease:
                try:
                    sent += _send(due, targets.of(due.record), session, read=read)
                except Exception as error:  # noqa: BLE001 - reported; one run stops no other
                    say(f"failed   {due.folder.stage}  key {due.folder.key}: {last_line(error)}")
                    failed.append(due.folder.key)
    finally:
        targets.end_launches()
    sent += plain.children(failed)
    say(f"synced   {counted(sent, 'run')} with {redacted(session.target.uri)}")
    _say_of_others(session)
    if failed:
        raise JobsFailed(f"{counted(len(failed), 'run')} could not be sent: {', '.join(failed)}")


def _say_of_others(session: Session) -> None:
    """Say where runs belong of which none belongs to this tracking store."""
    others = set[str]()
    for folder in session.store.runs():
        if records(folder, session.target):
            return
        others |= other_targets(folder, session.target)
    if others:
        where = " or ".join(sorted(others))
        say(f"No run of {session.runtime.store} belongs there. They belong to {where}:")
        say("set MLFLOW_TRACKING_URI to that and run the same command.")


class _Targets:
    """The tracking targets of records."""

    def __init__(self, session: Session, plain: PlainSync) -> None:
        self.target, self._plain = session.target, plain
        self._found: dict[tuple[str, str | None, str], TrackingTarget] = {}

    def of(self, record: UploadState) -> TrackingTarget:
        launch = self._plain.launch_of(record)
        goal = (record.experiment, launch, record.command)
        if goal not in self._found:
            self._found[goal] = replace(
                self.target,
                experiment=goal[0],
                launch_id=goal[1],
                verb=record.verb or "sync",
                command=record.command or self.target.command,
                numbers={},
                _experiment_id=None,
            )
        return self._found[goal]

    def end_launches(self) -> None:
        """End the launch runs that were opened here; those of other commands have their status."""
        for target in self._found.values():
            own = target.launch_id if target.own_launch else None
            if own is not None and target.client().get_run(own).info.status == RUNNING:
                target.end_launch(FINISHED, {})
            else:
                target.leave_launch()


class Different(NamedTuple):
    """A run that differs from the store, or whose files may, with its lease held."""

    folder: RunFolder
    record: UploadState
    lease: Lease
    result: RunResult | None
    history: list[HistoryEntry]
    kind: str  # right | lacks | wrong


def _different(session: Session) -> Iterator[Different]:
    by_experiment: dict[str, list[Due]] = defaultdict(list)
    for folder in session.store.runs():
        for record in records(folder, session.target):
            by_experiment[record.experiment].append(Due(folder, record))
    store = opened(session.target.uri) if by_experiment else None
    gone = deleted_experiments(store) if store is not None else set()
    for experiment, dues in by_experiment.items():
        if experiment in gone:
            say(f"left out experiment {experiment}: deleted ({counted(len(dues), 'run')})")
            continue
        yield from _of_experiment(experiment, dues, session, store)


def _of_experiment(
    experiment: str, dues: list[Due], session: Session, store: StoreReader | None
) -> Iterator[Different]:
    assert store is not None
    number = replace(session.target, experiment=experiment, _experiment_id=None).experiment_id()
    wanted = {due.record.run_id for due in dues if due.record.run_id is not None}
    tracked = tracked_runs(store, number, wanted)
    for due, lease in _free(dues, session):
        try:
            found = _judged(due, lease, tracked.get(due.record.run_id or ""), session.target)
        except Exception as error:  # noqa: BLE001 - reported; one run stops no other
            say(f"left out {due.folder.stage}  key {due.folder.key}: {last_line(error)}")
            found = None
        if found is None:
            lease.release()
        else:
            yield found


def _free(dues: list[Due], session: Session) -> Iterator[tuple[Due, Lease]]:
    """The runs that no process trains."""

    def held(due: Due) -> None:
        say(f"running  {due.folder.stage}  key {due.folder.key}: its own process sends it")

    return free_leases(
        [(due, due.folder.path) for due in dues],
        heartbeat_s=session.runtime.heartbeat_s,
        expiry_s=session.runtime.expiry_s,
        should_stop=session.stop,
        on_held=held,
    )


def _judged(
    due: Due, lease: Lease, run: TrackedRun | None, target: TrackingTarget
) -> Different | None:
    """What is to be done for a run; None where nothing is."""
    folder, record = due.folder, due.record
    spec, result = whole_spec(folder, target), folder.result()
    if spec is None:
        return None
    commit = folder.latest() if result is None else None
    history = list(commit.history) if commit is not None else []
    if run is None:
        if record.run_id is None and result is None and not history:
            return None  # nothing of it is known anywhere
        kind = LACKS
    elif run.tags.get("folder") not in (spec.folder, None):
        return None  # a finished run of the same key, of another folder
    else:
        reads = (
            folder.test_reads() if metrics.TEST_READS in (result.metrics if result else {}) else 0
        )
        kind = judged(run, spec, result, history, reads)
        if kind == RIGHT and result is None:
            return None
    return Different(folder, record, lease, result, history, kind)


def _send(due: Different, target: TrackingTarget, session: Session, *, read: bool) -> bool:
    """Send the rest of one run, or make it again; whether anything had to be sent."""
    upload = RunUpload(due.folder, target, due.lease)
    log_model = session.runtime.log_model and (upload.record.model or not upload.record.files)
    if due.kind == RIGHT and upload.record.files:
        try:
            if not upload.lacks_files(due.result, read=read):
                return False
        except CorruptFile as error:  # there is nothing that could be sent
            say(f"lost     {error}, and in the artifact store too: its command trains it again")
            return False
        upload.record.files = False
    elif due.kind != RIGHT:
        upload.mend(again=due.kind == WRONG)
    if due.result is not None:
        upload.finish(due.result, log_model=log_model)
    else:
        upload.start()
        upload.epochs(due.history)
        upload.stop(KILLED, {"interrupted": "true"})
    word = "repaired" if due.kind == WRONG else "sent    "
    say(f"{word} {due.folder.stage}  key {due.folder.key}")
    return True
