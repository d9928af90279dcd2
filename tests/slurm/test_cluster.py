"""A real Slurm on loopback, started by up.sh: arrays, a job that fails, preemption.

Skipped where Slurm is not installed: apt-get install slurm-wlm munge, and be root.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import command

HERE = Path(__file__).resolve().parent
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
ABSENT = [name for name in NEEDED if shutil.which(name) is None]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(ABSENT), reason=f"no Slurm here: {', '.join(ABSENT)} not found"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
]

CLUSTER = (
    "hydra/launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.poll_s=0.5",
    "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The variables by which commands find a Slurm with two nodes of two CPUs and two GPUs."""
    base = Path(tempfile.mkdtemp(prefix="sl"))  # short: the length of socket paths is limited
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        done = subprocess.run(
            ["bash", str(HERE / "up.sh"), str(base), str(port)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        yield {
            "SLURM_CONF": str(base / "etc" / "slurm.conf"),
            "PYTHONPATH": str(HERE.parents[1]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    finally:
        subprocess.run(["bash", str(HERE / "down.sh"), str(base)])
        shutil.rmtree(base, ignore_errors=True)


def ask(slurm: dict[str, str], *arguments: str) -> str:
    """The output of one of Slurm's commands."""
    environment = {**os.environ, **slurm}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_array_in_which_one_job_fails(clean: Path, slurm: dict[str, str]) -> None:
    """The failing job is FAILED in Slurm, with its traceback in its log; the other finishes."""
    sweep = ("-m", "cfg=CE", "optim.lr=2e-3,1e38", *CLUSTER, *command.TINY)
    output = command.run("distill", *sweep, cwd=clean, code=1, **slurm)
    assert "1 of 2 jobs failed" in output
    (failed,) = set(re.findall(r" failed .*job (\d+_\d)", output))
    assert "JobState=FAILED" in ask(slurm, "scontrol", "show", "job", failed)
    (log,) = clean.glob(f"store/multirun/*/jobs/{failed}_0_log.out")
    assert "NonFinite" in log.read_text()
    (finished,) = set(re.findall(r" finished .*job (\d+_\d)", output))
    assert "JobState=COMPLETED" in ask(slurm, "scontrol", "show", "job", finished)
    assert len(command.results(clean)) == 1


def test_a_preempted_job_goes_on_bit_for_bit(
    clean: Path, slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plain = tmp_path_factory.mktemp("plain")
    shutil.copy(clean / "mlflow.db", plain)
    options = ("cfg=CE", *command.TINY, "budget.student_epochs=60")
    driver = command.Command("distill", "-m", *options, *CLUSTER, cwd=clean, **slurm)
    assert driver.wait_for("running   distill-CE-digits-s0"), driver.log.read_text()
    _wait_for_epochs(driver, clean)
    urgent = ["sbatch", "-p", "urgent", "-N", "2", "-n", "2", "-c", "2", "--mem=100",
              "-o", "/dev/null", "--wrap", "sleep 3"]  # fmt: skip
    ask(slurm, *urgent)
    code, output = driver.end()
    assert code == 0, output
    (log,) = clean.glob("store/multirun/*/jobs/*_log.out")
    assert "stopped  distill-CE-digits-s0" in log.read_text()
    assert "resumed  distill-CE-digits-s0" in log.read_text()
    command.run("distill", *options, cwd=plain)
    assert command.student_digest(clean) == command.student_digest(plain)


def _wait_for_epochs(driver: command.Command, cwd: Path) -> None:
    """Until the job is in the middle of its epochs."""
    while not any("3/60" in p.read_text() for p in cwd.glob("store/multirun/*/jobs/*_log.out")):
        assert driver.process.is_alive(), driver.log.read_text()
        time.sleep(0.05)
