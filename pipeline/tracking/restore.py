"""Weights and descriptions of runs: checked where they are needed, and brought back from the
artifact store where the run folder has lost them."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from pipeline.cli.console import say
from pipeline.outcome import last_line
from pipeline.storage.atomic import CorruptFile, sha256, write_atomic
from pipeline.storage.run_record import RunResult, RunSpec, UnreadableRecord
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload_state import records

log = logging.getLogger("pipeline")

SPEC_FILE = "spec.json"  # the run's description, for readers without the run folder
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


def whole_spec(folder: RunFolder, target: TrackingTarget) -> RunSpec | None:
    """The description of a run, which comes back from the artifact store where it is damaged; None
    where the run has not started.

    Raises:
        CorruptFile: it is damaged, and no artifact store has it.
    """
    try:
        return folder.spec()
    except CorruptFile as error:
        for record in records(folder, target):
            if record.run_id is None:
                continue
            try:
                spec = logged_spec(target, record.run_id)
            except Exception as absent:  # noqa: BLE001 - reported
                log.warning("the artifact store gives no description (%s)", last_line(absent))
                continue
            folder.write_spec(spec)
            say(f"restored {error}: it came back from the artifact store")
            return spec
        raise CorruptFile(f"{error}; the command that trained the run writes it again") from error


def logged_spec(target: TrackingTarget, run_id: str) -> RunSpec:
    """The description of a run that it logged. Raises CorruptFile where it is damaged."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = target.client().download_artifacts(run_id, SPEC_FILE, scratch)
            return RunSpec.from_json(json.loads(Path(file).read_bytes()))
    except (ValueError, RecursionError, UnreadableRecord) as error:
        raise CorruptFile(f"artifact {SPEC_FILE} of run {run_id} is damaged: {error}") from error


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
