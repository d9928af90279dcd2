"""Weights of finished runs: checked where they are needed, and brought back from the artifact store
where the run folder has lost them."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from pipeline.cli.console import say
from pipeline.outcome import last_line
from pipeline.storage.atomic import CorruptFile, sha256, write_atomic
from pipeline.storage.run_record import RunResult
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload_state import records

log = logging.getLogger("pipeline")

WEIGHTS = "weights"  # folder of a run's artifacts


def whole_result(folder: RunFolder, target: TrackingTarget) -> RunResult | None:
    """The result of a finished run whose weights are there, or have just come back from the
    artifact store; None where the run has to be trained.

    Raises:
        DamagedRun, NewerRecord: the result cannot be read.
    """
    result = folder.result()
    if result is None:
        return None
    faults = folder.weights_faults(result)
    if not faults:
        return result
    for name, fault in faults.items():
        if not _restored(folder, name, result.weights[name], target):
            log.warning("%s, and no artifact store has it", fault)
            return None
        say(f"restored {fault}: it came back from the artifact store")
    return result


def _restored(folder: RunFolder, name: str, digest: str, target: TrackingTarget) -> bool:
    for record in records(folder, target):
        if record.run_id is None:
            continue
        try:
            data = fetched(target, record.run_id, name, digest)
        except Exception as error:  # noqa: BLE001 - reported; then the run is trained again
            log.warning("the artifact store gives no weights (%s)", last_line(error)[:200])
            continue
        write_atomic(folder.path / file_name(name, digest), data)
        return True
    return False


def file_name(name: str, digest: str) -> str:
    """The name of a file of weights, in run folders and among artifacts."""
    return f"{name}.{digest}.safetensors"


def fetched(target: TrackingTarget, run_id: str, name: str, digest: str) -> bytes:
    """The weights of a run from its artifacts.

    Raises:
        CorruptFile: they are not those of the digest.
        Exception: whatever MLflow raises where they are absent, or the store is away.
    """
    path = f"{WEIGHTS}/{file_name(name, digest)}"
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(target.client().download_artifacts(run_id, path, scratch)).read_bytes()
    if sha256(data) != digest:
        raise CorruptFile(f"artifact {path} of run {run_id} is damaged: another sha256")
    return data
