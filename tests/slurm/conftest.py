"""One cluster for all tests that need it, and commands on its login node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end import conftest as runs
from tests.slurm.cluster import Cluster, missing

clean, finished, with_teachers = runs.clean, runs.finished, runs.with_teachers

ROOT = Path(__file__).resolve().parents[2]
SLURM = (
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=20",
    "hydra.launcher.signal_delay_s=10",
    "hydra.launcher.poll_s=0.5",
)
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two virtual nodes of two CPUs and one fake GPU that two jobs may share."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    base = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: socket paths have a limit
    found = Cluster(base)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(base, ignore_errors=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """The output of a command that ends with this code."""
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


@pytest.fixture
def start(cluster: Cluster, clean: Path) -> Iterator[Start]:
    """Start a command of the project on the login node, in a folder of its own."""
    started = []

    def run(
        *arguments: str, cwd: Path = clean, start_new_session: bool = False, **env: str
    ) -> subprocess.Popen[str]:
        environment = {k: v for k, v in cluster.environment.items() if not k.startswith("MLFLOW_")}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=start_new_session,
        )
        started.append(process)
        return process

    yield run
    jobs = cluster.command("squeue", "-h", "-o", "%A").split()  # of a test that failed
    if jobs:
        cluster.command("scancel", *jobs)
    for process in started:
        if process.poll() is None:
            process.kill()
    os.sync()
