"""How a job ended: a small file next to its log. Imports the standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.storage.atomic import write_atomic

CANCELLED = "cancelled"
LOST = "lost"  # interrupted without its fault, and not back in the queue


@dataclass(frozen=True)
class Ending:
    """Exit code of a job and, where it is not 0, why."""

    code: int
    reason: str = ""
    how: str = ""  # cancelled | lost | empty

    @staticmethod
    def file(folder: Path, job: str) -> Path:
        return folder / f"{job}.end.json"

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, path: Path) -> Ending | None:
        """None where there is no such file, or not a whole one."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
