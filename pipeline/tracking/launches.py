"""Launch runs that this machine has begun: a record each until its end has reached the store.

A launch whose store was away at its end, or whose process was killed, is ended by `sync`.
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

FOLDER, FILE = "launches", "launch.json"


@dataclass
class LaunchRecord:
    """One launch run. Its lease is held as long as its command runs."""

    folder: str
    where: str  # the store, without password
    experiment: str
    verb: str
    command: str
    launch_id: str | None = None
    status: str | None = None  # None: its command runs, or was killed
    tags: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)  # metrics of the launch run

    def save(self) -> None:
        write_atomic(Path(self.folder, FILE), json.dumps(asdict(self)).encode())

    def lease(self) -> Lease | None:
        """The lease of the command; None where it runs."""
        return try_acquire(Path(self.folder))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def begun(lock_folder: Path, where: str) -> list[LaunchRecord]:
    """The launches of a store whose end has not arrived there."""
    found = []
    for path in sorted(lock_folder.glob(f"{FOLDER}/*/{FILE}")):
        try:
            record = LaunchRecord(**{**json.loads(path.read_text()), "folder": str(path.parent)})
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is damaged and is left out: %s", path, error)
            continue
        if record.where == where:
            found.append(record)
    return found
