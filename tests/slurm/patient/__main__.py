"""A task that works until a file exists, and ends at a checkpoint when it is signalled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    """FOLDER [deaf]; a file says that it has begun; 0 when the file `go` exists; 75 after a signal,
    which a deaf task does not hear."""
    folder, signalled = Path(arguments[0]), []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signalled.append(number))
        if "deaf" in arguments:
            signal.signal(number, signal.SIG_IGN)
    (folder / f"begun-{time.monotonic_ns()}-{os.environ['SLURM_JOB_ID']}").touch()
    while not (folder / "go").exists():
        if signalled:
            return 75
        time.sleep(0.1)
    return 0
