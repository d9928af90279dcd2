"""A program for jobs: writes what it sees of Slurm, and waits until so many have done so."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

SHOWN = ("CUDA_VISIBLE_DEVICES", "SLURM_CPUS_PER_TASK", "SLURMD_NODENAME")
WAIT_S = 120.0


def main(arguments: list[str]) -> int:
    """FOLDER COUNT; 1 if there were never `COUNT` jobs at once."""
    folder, count = Path(arguments[0]), int(arguments[1])
    seen = {name: os.environ.get(name) for name in SHOWN}
    (folder / f"{os.environ['SLURM_JOB_ID']}.json").write_text(json.dumps(seen))
    end = time.monotonic() + WAIT_S
    while len(list(folder.iterdir())) < count and time.monotonic() < end:
        time.sleep(0.05)
    return 0 if time.monotonic() < end else 1
