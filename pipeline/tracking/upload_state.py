"""Upload state: what of a run has arrived at a tracking target, or is due there."""

from __future__ import annotations

import logging
import secrets
from dataclasses import asdict, dataclass, field

from analysis.stores.address import redacted
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.target import TrackingTarget

log = logging.getLogger("pipeline")

RECORD_PREFIX = "tracking-"


@dataclass
class UploadState:
    """What has arrived at one tracking target; kept in the run folder."""

    run_id: str | None = None
    epochs: int = 0  # of the history, that have arrived
    described: bool = False  # params, tags, inputs
    finished: bool = False
    where: str = ""  # the store, without password
    experiment: str = ""  # name, or "#" and id
    launch_id: str | None = None  # the run that this one is a child of
    verb: str = ""  # of the command that trained it
    command: str = ""  # which call of that verb: runs of one call share a launch run
    files: bool = False  # weights, texts and the model
    model: bool = False  # an MLflow model is among the files
    model_files: dict[str, tuple[int, str | None]] = field(default_factory=dict)  # as it was logged
    folder: str = ""  # the folder's random name, from its spec
    reused: bool = False  # it was finished before it was wanted in this experiment

    @staticmethod
    def name(target: TrackingTarget) -> str:
        return f"{RECORD_PREFIX}{target.key}"

    @classmethod
    def load(cls, folder: RunFolder, target: TrackingTarget) -> UploadState:
        """The record of a target. One that is absent or damaged is made new: what has arrived is
        looked up in the tracking store."""
        return cls.read(folder, cls.name(target)) or cls(
            where=redacted(target.uri),
            experiment=target.experiment,
            launch_id=target.launch_id,
            verb=target.verb,
            command=target.command,
        )

    @classmethod
    def read(cls, folder: RunFolder, name: str) -> UploadState | None:
        """The record of this file name; None, with a warning, for one that is damaged."""
        try:
            body = folder.read_json(name)
            if body is None:
                return None
            body.setdefault("files", body["finished"])  # of an older version: they came before
            return cls(**{**body, "run_id": body["run_id"] or None})
        except (CorruptFile, AttributeError, KeyError, TypeError) as error:
            log.warning("%s/%s.json is damaged and is made again: %s", folder.path, name, error)
            return None

    def save(self, folder: RunFolder, target: TrackingTarget) -> None:
        folder.write_json(self.name(target), asdict(self))


def folder_name(folder: RunFolder) -> str:
    """The random name of a folder, by what has arrived in tracking stores; a new one where nothing
    is known."""
    found = [UploadState.read(folder, name) for name in _names(folder)]
    known = {record.folder for record in found if record is not None and record.folder}
    return known.pop() if len(known) == 1 else secrets.token_hex(8)


def _names(folder: RunFolder) -> list[str]:
    return sorted(path.stem for path in folder.path.glob(f"{RECORD_PREFIX}*.json"))


def records(folder: RunFolder, target: TrackingTarget) -> list[UploadState]:
    """What has arrived, or is due, in any experiment of a target's store."""
    found = [UploadState.read(folder, name) for name in _names(folder)]
    where = redacted(target.uri)
    return [record for record in found if record is not None and record.where == where]


def other_targets(folder: RunFolder, target: TrackingTarget) -> set[str]:
    """The addresses of the other tracking stores that a run belongs to, without passwords."""
    found = [UploadState.read(folder, name) for name in _names(folder)]
    return {record.where for record in found if record is not None} - {redacted(target.uri)}
