"""The sync verb: send what has not reached the tracking store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from analysis.stores.address import redacted
from pipeline.cli.console import say
from pipeline.config import compose
from pipeline.session import Session
from pipeline.storage.lease import Lease, try_acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload import RunUpload, UploadState, records


def sync_command(overrides: list[str]) -> None:
    """`sync runtime.store=FOLDER`.

    Raises:
        ConfigError: unknown options.
    """
    with Session.open(compose(overrides), "sync", overrides).launch() as session:
        sync(session)


def sync(session: Session) -> None:
    """Send what is missing of every run of the store, to the experiment and launch run that it
    belongs to. Runs that are being trained are left to their own process.
    """
    with ExitStack() as launches:
        sent = _sync(session, launches)
    say(f"synced   {sent} run{'' if sent == 1 else 's'} with {redacted(session.target.uri)}")


def _sync(session: Session, launches: ExitStack) -> int:
    """Send the runs that are incomplete and return their number; `launches` ends launch runs."""
    sent, targets = 0, dict[tuple[str, str | None, str], TrackingTarget]()
    for folder in session.store.runs():
        missing = _missing(folder, session)
        if not missing:
            continue
        lease = try_acquire(folder.path)
        if lease is None:
            say(f"running  {folder.stage}  key {folder.key}: its own process sends it")
            continue
        with lease:
            for record in missing:
                goal = (record.experiment, record.launch_id, record.command)
                if goal not in targets:
                    targets[goal] = replace(
                        session.target,
                        experiment=goal[0],
                        launch_id=goal[1],
                        verb=record.verb or "sync",
                    )
                    launches.enter_context(replace(session, target=targets[goal]).launch())
                _send(folder, targets[goal], lease, session)
                sent += 1
    return sent


def _missing(folder: RunFolder, session: Session) -> list[UploadState]:
    """The uploads of this run to the present tracking store that are incomplete."""
    return [r for r in records(folder, session.target) if not _complete(folder, r)]


def _complete(folder: RunFolder, record: UploadState) -> bool:
    """Whether all checkpointed epochs have arrived."""
    if record.finished:
        return True
    if folder.result() is not None or record.run_id is None:
        return False
    commit = folder.latest()
    return commit is None or record.epochs >= len(commit.history)


def _send(folder: RunFolder, target: TrackingTarget, lease: Lease, session: Session) -> None:
    """Send the rest of one run."""
    upload = RunUpload(folder, target, lease)
    result = folder.result()
    if result is not None:
        upload.finish(result, log_model=session.runtime.log_model)
    else:
        commit = folder.latest()
        upload.start()
        upload.epochs(commit.history if commit is not None else [])
        upload.stop("KILLED", {"interrupted": "true"})
    say(f"sent     {folder.stage}  key {folder.key}")
