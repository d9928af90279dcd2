"""Runs of commands (launches, evaluations, reports) that this machine has begun: a record of each
until its end has reached the store.

One whose store was away at its end, or whose process was killed, is ended by `sync`.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.storage.atomic import write_atomic
from pipeline.storage.lease import Lease, try_acquire

log = logging.getLogger("pipeline")

FOLDER, LAUNCH_STAGE = "launches", "launch"


@dataclass
class LaunchRecord:
    """One run of a command. The lease of its folder is held as long as the command runs."""

    folder: str
    where: str  # the store, without password
    experiment: str
    verb: str
    command: str
    launch_id: str | None = None  # its run
    status: str | None = None  # None: its command runs, or was killed
    tags: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)  # metrics of the launch run
    stage: str = LAUNCH_STAGE

    @property
    def file(self) -> Path:
        return Path(self.folder, f"{self.stage}.json")

    def save(self) -> None:
        write_atomic(self.file, json.dumps(asdict(self)).encode())

    def lease(self) -> Lease | None:
        """The lease of the command; None where it runs."""
        return try_acquire(Path(self.folder))

    def remove(self) -> None:
        """Remove the record, and its folder with the last one."""
        self.file.unlink(missing_ok=True)
        if not list(Path(self.folder).glob("*.json")):
            shutil.rmtree(self.folder, ignore_errors=True)


def begun(lock_folder: Path, where: str) -> list[LaunchRecord]:
    """The runs of commands whose end has not arrived in a store, launches last."""
    found = []
    for path in sorted(lock_folder.glob(f"{FOLDER}/*/*.json")):
        try:
            record = LaunchRecord(**{**json.loads(path.read_text()), "folder": str(path.parent)})
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is damaged and is left out: %s", path, error)
            continue
        if record.where == where:
            found.append(record)
    return found
