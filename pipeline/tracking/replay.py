"""Finished runs at further tracking targets: sent there where they are missing."""

from __future__ import annotations

from analysis import tags
from pipeline.storage.lease import acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.creation import is_gone
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload import RunUpload
from pipeline.tracking.upload_state import UploadState, records


def replay(folder: RunFolder, target: TrackingTarget, *, log_model: bool) -> str:
    """The id of a finished run at a tracking target, sent where it is missing: whole, and once
    however many processes call this at the same time.

    Raises:
        MlflowException: the store cannot be reached.
    """
    record = UploadState.load(folder, target)
    if record.run_id is None:
        target.begin()
        record.reused = True
        record.save(folder, target)  # where it is due: `sync` sends it if this call cannot
    whole = record.finished and record.files and record.run_id is not None
    if whole and target.register is None and not is_gone(target.client(), str(record.run_id)):
        return str(record.run_id)
    result = folder.result()
    assert result is not None, f"{folder.path} is not finished"
    with acquire(folder.path, poll_s=0.05) as lease:
        upload = RunUpload(folder, target, lease)  # with what another has sent meanwhile
        upload.start()
        upload.finish(result, log_model=log_model)
    return str(upload.record.run_id)


def arrived(folder: RunFolder, target: TrackingTarget) -> list[str]:
    """The ids of the finished runs of a folder in all experiments of a target's store: first where
    it was trained, then where it was reused."""
    client = target.client()
    finished = {r.run_id: r for r in records(folder, target) if r.finished and r.run_id}
    there = {run_id: r.experiment for run_id, r in finished.items() if not is_gone(client, run_id)}
    reused = {run_id: tags.REUSED in client.get_run(run_id).data.tags for run_id in there}
    return sorted(there, key=lambda run_id: (reused[run_id], there[run_id], run_id))
