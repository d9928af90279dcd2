"""Run the command line as a user would, on a problem small enough to run many times."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

from pipeline.storage.run_store import Store
from pipeline.tracking.replay import replay
from pipeline.tracking.target import TrackingTarget

# Two teachers of 2 epochs, 200 images, 10 steps an epoch: a run of a second or two.
TINY = (
    "bench=digits_all",
    "data.train_limit=200",
    "optim.batch=20",
    "budget.student_epochs=4",
    "budget.adapt_epochs=4",
    "teacher.0.recipe.epochs=2",
    "teacher.1.recipe.epochs=2",
    "runtime.commit_every_s=0",
    "runtime.log_model=false",
    "bench.enable_kd_after_syn_acc=0",
)
L3 = ("cfg=L3", "method.num_stages=2", "method.token_dim=16", "method.heads=2", *TINY)

# Importing torch and MLflow takes longer than a tiny run. A server process imports them once and
# forks a child for each command: a process of its own that runs the real command line and can
# really be killed.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "pipeline.stages.student",
        "pipeline.sync",
        "pipeline.evaluation.evaluate",
        "mlflow.store.tracking.sqlalchemy_store",
        "torch._dynamo",  # PyTorch's counter of operations brings it along
    ]
)


def _child(program: str, arguments: list[str], cwd: str, log: str, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    from pipeline.cli.console import out

    out.file = sys.stdout
    sys.exit(importlib.import_module(f"{program}.__main__").main(arguments))


class Command:
    """One command in a process of its own."""

    def __init__(
        self, verb: str, *overrides: str, cwd: Path, program: str = "pipeline", **env: str
    ) -> None:
        self.log = cwd / f"log-{time.monotonic_ns()}.txt"
        self.log.touch()
        arguments = (program, [verb, *overrides], str(cwd), str(self.log), env)
        self.process = _SERVER.Process(target=_child, args=arguments)
        self.process.start()

    def wait_for(self, text: str) -> bool:
        """Wait for a text in the output; False if the command ended without it."""
        while text not in self.log.read_text():
            if not self.process.is_alive():
                return text in self.log.read_text()
            time.sleep(0.005)
        return True

    def end(self) -> tuple[int, str]:
        """Wait for the end; exit code (negative: a signal) and output."""
        self.process.join(300)
        assert self.process.exitcode is not None, self.log.read_text()
        return self.process.exitcode, self.log.read_text()


def run(
    verb: str, *overrides: str, cwd: Path, code: int = 0, program: str = "pipeline", **env: str
) -> str:
    """A command's output; its exit code must be `code`."""
    got, output = Command(verb, *overrides, cwd=cwd, program=program, **env).end()
    assert got == code, f"exit {got}, not {code}:\n{output}"
    return output


def interrupt(
    verb: str, *overrides: str, cwd: Path, after: str, delay: float, number: signal.Signals
) -> tuple[int, str]:
    """Start a command and send it a signal `delay` seconds after a text in its output (or let
    it end); its exit code and output."""
    command = Command(verb, *overrides, cwd=cwd)
    if command.wait_for(after):
        time.sleep(delay)
        if command.process.is_alive():
            os.kill(command.process.pid, number)
    return command.end()


def copy_finished(source: Path, target: Path) -> None:
    """Copy a folder with finished runs; its tracking store names the copy's artifacts."""
    shutil.copytree(source, target)
    base = sqlite3.connect(target / "mlflow.db")
    for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
        base.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(source), str(target))
        )
    base.commit()
    base.close()
    address = TrackingTarget(
        f"sqlite:///{target}/mlflow.db", "asib", None, "test", target / "store" / "tracking"
    )
    for run in Store(target / "store" / "runs").runs():
        if run.stage != "bank":
            replay(run, address, log_model=False)  # known at the new address


def copy_teachers(source: Path, target: Path) -> None:
    """Give a folder the finished teachers and their banks of another."""
    for stage in ("finetune", "bank"):
        shutil.copytree(source / "store" / "runs" / stage, target / "store" / "runs" / stage)


def results(cwd: Path, stage: str = "distill") -> dict[str, dict]:
    """The results of finished runs by key."""
    found = sorted((cwd / "store" / "runs" / stage).glob("*/result.json"))
    return {path.parent.name: json.loads(path.read_text())["body"] for path in found}


def student_digest(cwd: Path) -> str:
    """sha256 of the weights of the only finished student."""
    (result,) = results(cwd).values()
    return result["weights"]["student"]


def losses(result: dict) -> list[float]:
    """The losses of all epochs of a result."""
    return [entry["metrics"]["train/loss/total"] for entry in result["history"]]
