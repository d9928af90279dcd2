"""A task as a job of Slurm: what it leaves, and how it goes back into the queue."""

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.launch import base, requeue, slurm_job
from pipeline.launch.base import Task
from pipeline.launch.ending import CANCELLED, LOST, Ending
from pipeline.launch.requeue import Requeue
from pipeline.launch.slurm_job import SlurmJob
from tests.pipeline.launch.fake_slurm import FakeSlurm


@pytest.fixture(autouse=True)
def _of_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "18")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setattr(requeue, "TRY_S", 0.01)
    monkeypatch.setattr(requeue, "REQUEUE_S", 0.5)
    monkeypatch.setattr(requeue, "_wait_for_the_end", lambda: None)


def job(folder: Path, most: int = 1) -> SlurmJob:
    return SlurmJob(asdict(Task("a", "pipeline", ())), Requeue(True, most), folder)


def test_an_interrupted_job_is_requeued(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.queue("18_1 RUNNING None")
    job(tmp_path).requeue.interrupted()
    assert fake.read("requeued") == "requeue 18_1\n"


def test_a_cancelled_job_is_not(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.queue("18_1 COMPLETING None")
    assert job(tmp_path).requeue.interrupted().how == CANCELLED
    assert fake.read("requeued") == ""


def test_a_job_whose_time_is_over_is_requeued(fake: FakeSlurm, tmp_path: Path) -> None:
    """The warning was lost; Slurm ends the job already."""
    fake.queue("18_1 COMPLETING TimeLimit")
    job(tmp_path).requeue.interrupted()
    assert fake.read("requeued") == "requeue 18_1\n"


def test_a_job_is_requeued_a_limited_number_of_times(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    found = job(tmp_path).requeue.interrupted()
    assert "not requeued" in found.reason
    assert found.how == ""


@pytest.mark.parametrize("command", ["squeue", "scontrol"])
def test_a_controller_that_is_away_is_tried_again_and_reported_once(
    fake: FakeSlurm, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    fake.queue("18_1 RUNNING None")
    fake.mode(command, "away 3")
    monkeypatch.setattr(requeue, "REQUEUE_S", 60)
    job(tmp_path).requeue.interrupted()
    assert fake.read("requeued") == "requeue 18_1\n"
    assert capsys.readouterr().out.count("tried again while Slurm lets this job live") == 1


@pytest.mark.parametrize(("command", "mode"), [("squeue", "away"), ("scontrol", "refuse")])
def test_a_job_that_cannot_be_requeued_is_left_to_the_command_that_follows_it(
    fake: FakeSlurm, tmp_path: Path, command: str, mode: str
) -> None:
    fake.queue("18_1 RUNNING None")
    fake.mode(command, mode)
    found = job(tmp_path).requeue.interrupted()
    assert found.how == LOST
    assert "Slurm did not requeue it" in found.reason


def test_a_job_leaves_its_end_and_the_reason(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Ending.file(tmp_path, "18_1")
    Ending(1, "of the job before it was requeued").save(file)
    monkeypatch.setattr(base, "execute", lambda task: Ending(1, "NonFinite: loss"))
    handlers = {number: signal.getsignal(number) for number in requeue.SIGNALS}
    try:
        assert job(tmp_path).run() == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert Ending.load(file) == Ending(1, "NonFinite: loss")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"code": 0, "more": 1}'])
def test_an_end_that_is_no_whole_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert Ending.load(tmp_path / "x") is None


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        ("ConfigError(['cfg=nope: unknown'])", 2, "1 error:; - cfg=nope: unknown"),
        ("NonFinite('train/loss/kd is not finite')", 1, "NonFinite: train/loss/kd is not finite"),
        ("Interrupted()", 75, "Interrupted"),
    ],
)
def test_a_task_ends_with_the_reason_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str, code: int, reason: str
) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(
        f"""
from pipeline.config import ConfigError
from pipeline.outcome import exit_code_of
from trainers.errors import Interrupted
from trainers.loop import NonFinite

def run():
    raise {raised}

def main(arguments):
    return exit_code_of(run)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "program", raising=False)
    monkeypatch.delitem(sys.modules, "program.__main__", raising=False)
    assert base.execute(Task("a", "program", ())) == Ending(code, reason)


def test_a_task_that_cannot_begin_ends_with_the_reason() -> None:
    found = base.execute(Task("a", "no.such.program", ()))
    assert found == Ending(1, "ModuleNotFoundError: No module named 'no'")


def test_a_signal_before_the_command_has_begun_requeues_the_job(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.queue("18_1 RUNNING None")
    fake.mode("scontrol", "refuse")  # so that the process ends by itself

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(slurm_job.os, "_exit", leave)
    monkeypatch.setattr(base, "execute", lambda task: os.kill(os.getpid(), signal.SIGUSR2))
    handlers = {number: signal.getsignal(number) for number in requeue.SIGNALS}
    try:
        with pytest.raises(SystemExit):
            job(tmp_path).run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert Ending.load(Ending.file(tmp_path, "18_1")).how == LOST
