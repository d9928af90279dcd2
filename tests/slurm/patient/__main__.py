"""A task that works until a file exists, and ends at a checkpoint when it is signalled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Leave a file that has begun; 0 when the file `go` exists, 75 after a signal."""
    folder, signalled = Path(arguments[0]), []
    signal.signal(signal.SIGUSR2, lambda number, frame: signalled.append(number))
    signal.signal(signal.SIGTERM, lambda number, frame: signalled.append(number))
    (folder / f"begun-{time.monotonic_ns()}-{os.environ['SLURM_JOB_ID']}").touch()
    while not (folder / "go").exists():
        if signalled:
            return 75
        time.sleep(0.1)
    return 0
