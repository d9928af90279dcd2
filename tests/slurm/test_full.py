"""Slurm at length: time-outs, cancelled jobs, dead nodes, two commands at once, shared GPUs, and
the script for sites that forbid launchers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_runs
from pipeline.launch.base import DONE, NOT_RUN, Task
from pipeline.launch.options import SlurmConfig
from pipeline.launch.slurm import Slurm
from tests.end_to_end import command
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, SLURM, Start, ended
from tests.slurm.longer import bit_equal, checkpointed, longer, uninterrupted

pytestmark = [pytest.mark.slurm, pytest.mark.by_hand]


def test_ladder_and_seeds_as_arrays_by_two_commands_at_once(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    """Every key is trained once, teachers before banks before students; the second command joins
    the jobs of the first; a third call submits nothing."""
    before = len(cluster.finished())
    sweep = ("pipeline", "distill", "-m", "cfg=CE,KD", "seed=0,1", *command.TINY, *SLURM)
    first, second = start(*sweep), start(*sweep)
    output = ended(first)
    ended(second)
    assert len(cluster.finished()) - before == 2 + 2 + 4
    assert len(command.results(clean, "finetune")) == 2
    assert len(command.results(clean)) == 4
    for cfg in ("CE", "KD"):
        assert output.count(f"distill-{cfg}-digits_all-s") >= 2
    logs = [path.read_text() for path in (clean / "store").rglob("*.out")]
    for text in ("finished finetune", "finished view bank"):
        assert sum(log.count(text) for log in logs) == 2
    runs = load_runs(f"sqlite:///{clean}/mlflow.db", "asib")
    students = runs[runs[f"tags.{tags.STAGE}"] == "distill"]
    assert set(students["status"]) == {"FINISHED"}
    assert students["parent_id"].nunique() == 1
    assert students[f"tags.{tags.RUN_KEY}"].nunique() == len(students) == 4
    before = len(cluster.finished())
    again = ended(start(*sweep))
    assert again.count("reused") >= 4
    assert len(cluster.finished()) == before


def test_a_job_out_of_time_is_requeued_and_resumes_to_the_same_weights(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    """Limits are whole minutes: that of the running job is lowered to the next one, and lifted
    again when it is back in the queue."""
    run = longer(epochs=120)
    alone = uninterrupted(with_teachers, run)
    early = "hydra.launcher.signal_delay_s=50"
    process = start("pipeline", "distill", "-m", *run, *SLURM, early, cwd=with_teachers)
    began = time.monotonic()
    (job,) = checkpointed(cluster, with_teachers).values()
    minutes = int((time.monotonic() - began) // 60) + 1
    cluster.command("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    cluster.wait(lambda: "PENDING" in " ".join(cluster.states()), 120, "job back in the queue")
    cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=20")
    ended(process)
    bit_equal(with_teachers, alone)


def test_a_cancelled_job_is_the_only_one_to_be_run_again(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    sweep = ("pipeline", "distill", "-m", "seed=0,1", *longer(), *SLURM)
    process = start(*sweep, cwd=with_teachers)
    jobs = checkpointed(cluster, with_teachers, students=2)
    cluster.command("scancel", jobs["distill-L1-digits_all-s1"])
    output = ended(process, 1)
    assert "1 of 2 jobs failed: distill-L1-digits_all-s1" in output
    assert "interrupted, cancelled" in output
    assert len(command.results(with_teachers)) == 1
    assert statuses(with_teachers) == ["FINISHED", "KILLED"]
    before = set(cluster.finished())
    output = ended(start(*sweep, cwd=with_teachers))
    assert output.count("reused   distill-L1-digits_all-s0") == 1
    assert len(set(cluster.finished()) - before) == 1
    assert len(command.results(with_teachers)) == 2
    assert statuses(with_teachers) == ["FINISHED", "FINISHED"]


def test_a_cancelled_study_stays_cancelled_and_resumes_on_command(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    """Another terminal cancels while the first command follows, after a trial was finished: new
    workers would undo that."""
    slow = longer(epochs=120)  # so that it still runs when the other command cancels it
    options = ("seeds=0", "trials=6", "workers=2", *slow, *SLURM)
    study = ("sweeps", "beta", *options)
    first = start(*study, cwd=with_teachers)
    cluster.wait(lambda: command.results(with_teachers), 300, "a trial is finished")
    ended(start(*study, "--cancel", cwd=with_teachers))
    output = ended(first, 75)
    assert "cancelled: worker-0, worker-1; run the same command to resume" in output
    assert cluster.states() == []
    assert len(command.results(with_teachers)) < 6
    ended(start(*study, cwd=with_teachers))
    assert len(command.results(with_teachers)) == 6


def statuses(cwd: Path) -> list[str]:
    """Of the students in MLflow, sorted."""
    runs = load_runs(f"sqlite:///{cwd}/mlflow.db", "asib")
    return sorted(runs[runs[f"tags.{tags.STAGE}"] == "distill"]["status"])


def test_a_node_that_dies_and_comes_back(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    alone = uninterrupted(with_teachers, longer())
    process = start("pipeline", "distill", "-m", *longer(), *SLURM, cwd=with_teachers)
    (job,) = checkpointed(cluster, with_teachers).values()
    node = cluster.command("squeue", "-h", "-j", job, "-o", "%N").strip()
    cluster.kill_node(node, job)
    cluster.start_node(node)
    ended(process)
    bit_equal(with_teachers, alone)


def test_students_of_a_bank_that_fails_end_with_the_reason(
    start: Start, cluster: Cluster, with_teachers: Path
) -> None:
    shutil.rmtree(with_teachers / "store/runs/bank")
    next((with_teachers / "store/runs/finetune").glob("*/teacher.*.safetensors")).unlink()
    sweep = ("pipeline", "distill", "-m", "cfg=KD", "seed=0,1", *command.TINY, *SLURM)
    output = ended(start(*sweep, cwd=with_teachers), 1)
    assert "3 of 4 jobs failed" in output
    assert output.count(NOT_RUN) >= 2
    assert not cluster.states()


def test_jobs_share_gpus(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four jobs at once on two GPUs: each waits until the other three run."""
    if not (cluster.numbered and cluster.shards):
        pytest.skip("no right to make a device, or a Slurm before 22.05, which has no shards")
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    seen = tmp_path / "seen"
    seen.mkdir()
    config = SlurmConfig(gres="shard:1", cpus_per_task=1, mem_gb=1, poll_s=0.5)
    launcher = Slurm(config, tmp_path / "jobs")
    names_ = [f"show{number}" for number in range(4)]
    launcher.submit([Task(name, "tests.slurm.show", (str(seen), "4")) for name in names_])
    cluster.wait(
        lambda: {one.state for one in launcher.poll().values()} == {DONE}, 150, "four jobs at once"
    )
    found = [json.loads(path.read_text()) for path in seen.iterdir()]
    assert sorted(one["SLURMD_NODENAME"] for one in found) == ["n1", "n1", "n2", "n2"]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in found} == {"0"}


@pytest.mark.parametrize("several", [(), ("-m", "seed=0,1", "hydra.launcher.jobs_parallel=2")])
def test_the_script_for_sites_without_launchers(
    cluster: Cluster, with_teachers: Path, several: tuple[str, ...]
) -> None:
    """It goes back into the queue after a signal, and on bit for bit; also with several students
    at once in the job."""
    alone = uninterrupted(with_teachers, longer())
    clean = {k: v for k, v in cluster.environment.items() if not k.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    done = subprocess.run(
        [
            "sbatch",
            "--parsable",
            "--mem=1G",
            "--cpus-per-task=1",
            ROOT / "docs/slurm/job.sbatch",
            "pipeline",
            "distill",
            *several,
            *longer(),
        ],
        cwd=with_teachers,
        capture_output=True,
        text=True,
        check=True,
        env=clean | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    job = done.stdout.strip()
    students = 2 if several else 1
    checkpointed(cluster, with_teachers, students)
    cluster.command("scancel", "--signal=USR2", job)
    cluster.wait(lambda: "PENDING" in " ".join(cluster.states()), 60, "job back in the queue")
    cluster.wait(lambda: not cluster.states(), 300, "empty queue")
    assert cluster.finished()[job] == "COMPLETED", next(with_teachers.glob("asib-*")).read_text()
    assert len(command.results(with_teachers)) == students
    bit_equal(with_teachers, alone)
