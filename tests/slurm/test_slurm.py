"""Multiruns on a real Slurm: arrays, preemption, failures, two commands at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.runs import load_runs
from pipeline import names
from tests.end_to_end import command
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT, Start

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.gres=null", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=20", "hydra.launcher.poll_s=0.5",
    "hydra.launcher.signal_delay_s=10",
)  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def test_ladder_and_seeds_as_arrays_by_two_commands_at_once(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    """Every key is trained once, teachers before students, all under one launch of each command;
    a third call submits nothing."""
    sweep = ("pipeline", "distill", "-m", "cfg=CE,KD", "seed=0,1", *command.TINY, *SLURM)
    first, second = start(*sweep), start(*sweep)
    output = ended(first)
    ended(second)
    assert len(command.results(clean, "finetune")) == 2
    assert len(command.results(clean)) == 4
    for cfg in ("CE", "KD"):
        assert output.count(f"distill-{cfg}-digits-s") >= 2
    runs = load_runs(f"sqlite:///{clean}/mlflow.db", "asib")
    students = runs[runs[f"tags.{names.STAGE}"] == "distill"]
    assert set(students["status"]) == {"FINISHED"}
    assert students.groupby("parent_id")[f"tags.{names.RUN_KEY}"].nunique().max() <= 4
    assert students[f"tags.{names.RUN_KEY}"].nunique() == 4
    for key in students[f"tags.{names.RUN_KEY}"]:
        assert (students[f"tags.{names.RUN_KEY}"] == key).sum() <= 2  # trained, perhaps replayed
    before = len(cluster.finished())
    again = ended(start(*sweep))
    assert again.count("reused") >= 4
    assert len(cluster.finished()) == before


def test_a_job_that_fails_is_failed_everywhere_and_takes_nobody_with_it(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    before = set(cluster.finished())
    sweep = ("pipeline", "distill", "-m", "cfg=CE", "optim.lr=1e-3,1e30", *command.TINY, *SLURM)
    output = ended(start(*sweep), 1)
    assert "1 of 2 jobs failed" in output
    (result,) = command.results(clean).values()
    assert result["metrics"][names.TEST_READS] == 1
    states = {state for job, state in cluster.finished().items() if job not in before}
    assert states == {"COMPLETED", "FAILED"}
    runs = load_runs(f"sqlite:///{clean}/mlflow.db", "asib")
    students = runs[runs[f"tags.{names.STAGE}"] == "distill"].set_index("status")
    assert sorted(students.index) == ["FAILED", "FINISHED"]
    assert "not finite" in students.loc["FAILED", f"tags.{names.ERROR}"]
    launch = runs[runs[f"tags.{names.STAGE}"] == "launch"].iloc[0]
    assert launch["status"] == "FAILED"
    logs = "".join(path.read_text() for path in (clean / "store").rglob("*.err"))
    assert "NonFinite" in logs
    assert "Traceback" in logs


def test_preempted_by_a_higher_partition_goes_on_bit_for_bit(
    start: Start, cluster: Cluster, with_teachers: Path, tmp_path: Path
) -> None:
    long = ("cfg=L1", "budget.student_epochs=60", "method.token_dim=16", "method.heads=2")
    tiny = [o for o in command.TINY if not o.startswith("budget.student_epochs")]
    command.run("distill", *long, *tiny, "runtime.store=alone", cwd=with_teachers)
    (alone,) = (with_teachers / "alone/runs/distill").glob("*/student.*.safetensors")
    process = start(
        "pipeline", "distill", "-m", *long, "seed=0", *tiny, *SLURM,
        "runtime.commit_every_s=0", cwd=with_teachers,
    )  # fmt: skip
    store = with_teachers / "store/runs/distill"
    cluster.wait(lambda: list(store.glob("*/commit-*.pt")), 120, "commit of the student")
    urgent = [
        cluster.command("sbatch", "--parsable", "-p", "urgent", "-N1", "--exclusive", "-o",
                        str(tmp_path / "urgent-%j"), "--wrap", "sleep 4").strip()
        for _ in cluster.nodes
    ]  # fmt: skip
    ended(process)
    assert all(cluster.finished()[job] == "COMPLETED" for job in urgent)
    (path,) = store.glob("*/student.*.safetensors")
    assert path.name == alone.name  # its sha256 is in its name
    logs = "".join(p.read_text() for p in (with_teachers / "store").rglob("*.out"))
    assert "resumed  distill-L1-digits-s0" in logs
    client = MlflowClient(tracking_uri=f"sqlite:///{with_teachers}/mlflow.db")
    runs = load_runs(f"sqlite:///{with_teachers}/mlflow.db", "asib")
    (run,) = runs[runs[f"tags.{names.STAGE}"] == "distill"]["run_id"]
    steps = [m.step for m in client.get_metric_history(run, names.LOSS_TOTAL)]
    assert sorted(steps) == list(range(64))  # nothing lost, nothing twice


def test_a_job_sees_the_gpus_that_slurm_gave_it(
    start: Start, cluster: Cluster, clean: Path
) -> None:
    """CUDA_VISIBLE_DEVICES is left as Slurm sets it."""
    output = clean / "gpu.txt"
    code = "import os, pipeline; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    cluster.command(
        "sbatch", "--gres", "gpu:1", "-o", str(output), "-D", str(ROOT),
        "--wrap", f'{sys.executable} -c "{code}"',
    )  # fmt: skip
    cluster.wait(lambda: output.is_file() and output.read_text().strip(), 60, "output")
    assert output.read_text().strip() == "0"
