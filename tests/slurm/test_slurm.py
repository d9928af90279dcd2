"""Multiruns on a real Slurm: an array with jobs before it and one that fails, preemption, GPUs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_runs
from pipeline.launch.base import DONE, Task
from pipeline.launch.options import SlurmConfig
from pipeline.launch.slurm import Slurm
from tests.end_to_end import command
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, SLURM, Start, ended
from tests.slurm.longer import bit_equal, checkpointed, longer, uninterrupted
from trainers import metrics

pytestmark = pytest.mark.slurm


@pytest.mark.thorough
def test_an_array_waits_for_its_banks_and_one_job_fails(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    """Absent banks are jobs that the array waits for; a job that raises is FAILED in Slurm and in
    MLflow, with its traceback in its log; the others finish."""
    shutil.rmtree(with_teachers / "store/runs/bank")
    before = set(cluster.finished())
    sweep = ("pipeline", "distill", "-m", "cfg=KD", "optim.lr=1e-3,1e30", *command.TINY, *SLURM)
    output = ended(start(*sweep, cwd=with_teachers), 1)
    assert "1 of 4 jobs failed" in output
    (result,) = command.results(with_teachers).values()
    assert result["metrics"][metrics.TEST_READS] == 1
    states = [state for job, state in cluster.finished().items() if job not in before]
    assert sorted(states) == ["COMPLETED"] * 3 + ["FAILED"]
    runs = load_runs(f"sqlite:///{with_teachers}/mlflow.db", "asib")
    students = runs[runs[f"tags.{tags.STAGE}"] == "distill"].set_index("status")
    assert sorted(students.index) == ["FAILED", "FINISHED"]
    assert "not finite" in students.loc["FAILED", f"tags.{tags.ERROR}"]
    (launch,) = runs[runs[f"tags.{tags.STAGE}"] == "launch"]["status"]
    assert launch == "FAILED"
    logs = [path.read_text() for path in (with_teachers / "store").rglob("*.out")]
    assert sum("finished view bank" in log for log in logs) == 2
    assert not [log for log in logs if "view bank" in log and "distill-KD" in log]
    (failed,) = [log for log in logs if "NonFinite" in log]
    assert "Traceback" in failed


@pytest.mark.thorough
def test_a_launcher_of_hydra_with_any_option_of_sbatch(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    """As users of hydra-submitit-launcher type it; Slurm itself shows the options."""
    more = "hydra.launcher.additional_parameters={nice: 7, mail-type: NONE}"
    words = ("cfg=CE", *command.TINY, *SLURM, "hydra.launcher.comment=a b", more)
    process = start("pipeline", "distill", "-m", *words, cwd=clean)
    seen: list[str] = []
    try:
        cluster.wait(
            lambda: (
                seen.extend(cluster.command("squeue", "-h", "-o", "%k|%y").split("\n"))
                or "a b|7" in seen
            ),
            90,
            "job with these options",
        )
    finally:
        output = ended(process)
    assert "distill-CE-digits_all-s0" in output
    (result,) = command.results(clean).values()
    assert result["metrics"][metrics.TEST_READS] == 1
    (script,) = clean.glob("store/multirun/*/jobs/*.sh")
    assert "#SBATCH --nice=7\n#SBATCH" in script.read_text()
    assert not list(clean.rglob("*.pkl"))  # jobs are JSON


@pytest.mark.thorough
def test_a_preempted_job_resumes_to_the_same_weights(
    start: Start, cluster: Cluster, with_teachers: Path, tmp_path: Path
) -> None:
    alone = uninterrupted(with_teachers, longer())
    process = start("pipeline", "distill", "-m", *longer(), *SLURM, cwd=with_teachers)
    (job,) = checkpointed(cluster, with_teachers).values()
    node = cluster.command("squeue", "-h", "-j", job, "-o", "%N").strip()
    urgent = cluster.command(
        "sbatch",
        "--parsable",
        "-p",
        "urgent",
        "-w",
        node,
        "--exclusive",
        "-o",
        str(tmp_path / "urgent"),
        "--wrap",
        "true",
    ).strip()
    ended(process)
    assert cluster.finished()[urgent] == "COMPLETED"
    bit_equal(with_teachers, alone)


@pytest.mark.thorough
def test_runs_that_share_a_job_resume_to_the_same_weights(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    """One job, which goes back into the queue once for both."""
    alone, before = uninterrupted(with_teachers, longer()), set(cluster.finished())
    shared = (*SLURM, "hydra.launcher.runs_per_job=2")
    process = start("pipeline", "distill", "-m", *longer(), "seed=0,1", *shared, cwd=with_teachers)
    jobs = checkpointed(cluster, with_teachers, students=2)
    (job,) = {number.partition(".")[0] for number in jobs.values()}
    assert sorted(jobs.values()) == [f"{job}.0", f"{job}.1"]
    cluster.command("scancel", "--signal=USR2", job)
    ended(process)
    assert set(cluster.finished()) - before == {job}
    bit_equal(with_teachers, alone)
    logs = {path.name: path.read_text() for path in with_teachers.rglob(f"{job}*.out")}
    for part, seed in enumerate((0, 1)):
        assert f"resumed  distill-L1-digits_all-s{seed}" in logs[f"{job}.{part}.out"]
    assert len(command.results(with_teachers)) == 2


def test_a_job_sees_the_gpu_and_the_cores_of_its_allocation(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cluster.numbered:
        pytest.skip("no right to make a device, which a fake GPU is")
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    seen = tmp_path / "seen"
    seen.mkdir()
    launcher = Slurm(SlurmConfig(cpus_per_task=2, mem_gb=1, poll_s=0.5), tmp_path / "jobs")
    launcher.submit([Task("show", "tests.slurm.show", (str(seen), "1"))])
    cluster.wait(lambda: launcher.poll()["show"].state == DONE, 60, "job that is done")
    (path,) = seen.iterdir()
    found = json.loads(path.read_text())
    assert (found["CUDA_VISIBLE_DEVICES"], found["SLURM_CPUS_PER_TASK"]) == ("0", "2")


@pytest.mark.thorough
def test_the_tasks_of_a_job_train_one_student(cluster: Cluster, clean: Path) -> None:
    """After a signal the job goes back into the queue, and resumes."""
    environment = {k: v for k, v in cluster.environment.items() if not k.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    tiny = [o for o in command.TINY if not o.startswith("budget.student_epochs")]
    script = ["--ntasks=2", "--nodes=1", "--gres=none", str(ROOT / "docs/slurm/job.sbatch")]
    words = ["pipeline", "distill", "cfg=CE", "budget.student_epochs=40", "runtime.ranks=2", *tiny]
    job = subprocess.run(
        ["sbatch", "--parsable", "--mem=4G", *script, *words],
        cwd=clean,
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ).stdout.strip()
    checkpointed(cluster, clean)
    cluster.command("scancel", "--signal=USR2", job)
    cluster.wait(lambda: "PENDING" in " ".join(cluster.states()), 60, "job back in the queue")
    cluster.wait(lambda: not cluster.states(), 300, "empty queue")
    (log,) = (path.read_text() for path in clean.glob("asib-*.log"))
    assert cluster.finished()[job] == "COMPLETED", log
    assert log.count("resumed  distill-CE") == 1
    (result,) = command.results(clean).values()
    assert result["metrics"][metrics.TEST_READS] == 1
    assert len(result["history"]) == 40
