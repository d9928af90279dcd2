"""Launchers, and the tasks that they run and report on."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from analysis.stores.address import redacted
from pipeline.launch.controller import never
from pipeline.launch.ending import Ending
from pipeline.outcome import last_reason, reason_of
from pipeline.tracking.target import LAUNCH, LAUNCHED_BY, TrackingTarget

log = logging.getLogger("pipeline")

NOT_RUN = "not run: a job that it depends on has failed"

WAITING, RUNNING, DONE, FAILED, HALTED = "waiting", "running", "finished", "failed", "stopped"
ENDED = (DONE, FAILED, HALTED)


@dataclass(frozen=True)
class Task:
    """A command of this project, `python -m PROGRAM ARGUMENTS`, run as a separate process."""

    name: str
    program: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()  # names of tasks that must finish first
    restarts: int = 0  # how often it is restarted after a kill

    @classmethod
    def of(cls, values: dict[str, Any]) -> Task:
        """The task of `dataclasses.asdict`, also after it has been JSON."""
        environment = tuple((name, value) for name, value in values["environment"])
        lists = {name: tuple(values[name]) for name in ("arguments", "after")}
        return cls(**{**values, **lists, "environment": environment})


@dataclass(frozen=True)
class Status:
    """The state of a task."""

    state: str = WAITING
    note: str = ""
    cancelled: bool = False  # it failed because it was cancelled
    refused: bool = False  # it failed because it can never start with these options


class Launcher(Protocol):
    """Runs the tasks of one command; `folder` holds their logs and the ids of jobs."""

    folder: Path
    survives: bool  # whether tasks keep running when this process ends

    def submit(self, tasks: list[Task], stop: Callable[[], bool] = never) -> None:
        """Queue these tasks; a task whose name is already running is followed, not started. `stop`
        tells whether a stop was requested meanwhile."""

    def poll(self) -> dict[str, Status]:
        """The present status by name."""

    def cancel(self) -> int:
        """Cancel all submitted tasks, those of earlier commands too; return their number."""

    def left(self) -> str:
        """What is left of tasks that survive this process, as a sentence; empty if none is."""

    def log_of(self, name: str) -> Path:
        """The file with the output of a task."""


def environment_of(target: TrackingTarget, run_id: str | None) -> tuple[tuple[str, str], ...]:
    """The environment variables that give a task its tracking store, experiment and parent run, and
    the options of the launcher.

    An address with a password stays in the environment, which tasks inherit, and is not written
    to files.
    """
    found = {}
    if redacted(target.uri) == target.uri:
        found["MLFLOW_TRACKING_URI"] = target.uri
    number = target.experiment.startswith("#")
    name = "MLFLOW_EXPERIMENT_ID" if number else "MLFLOW_EXPERIMENT_NAME"
    found[name] = target.experiment.removeprefix("#")
    if run_id is not None:
        found["MLFLOW_RUN_ID"] = run_id
    else:  # the store is away: whoever reaches it first opens the launch run of all
        found[LAUNCH] = f"{target.verb}:{target.command}"
    if target.launcher:
        found[LAUNCHED_BY] = target.launcher
    return tuple(found.items())


def execute(task: Task, more: Iterable[tuple[str, str]] = ()) -> Ending:
    """Run a task in this process; return its exit code and, if it failed, the reason."""
    os.environ.update([*task.environment, *more])
    try:
        main = importlib.import_module(f"{task.program}.__main__").main
        code = int(main(list(task.arguments)))
    except Exception as error:
        log.error("failed", exc_info=error)
        return Ending(1, reason_of(error))
    return Ending(code, last_reason() if code else "")


def job_folder(given: str | None, own: Path) -> Path:
    """The folder of logs: the given one, whose `%j` would be the job of submitit, or our own."""
    return own if given is None else Path(*(p for p in Path(given).parts if p != "%j")).absolute()


def redirect(path: Path, *, errors: Path | None = None) -> None:
    """Append the output of this process to a file from now on, its errors to another if given."""
    for number, file in ((1, path), (2, errors or path)):
        output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, number)
        os.close(output)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    from pipeline.cli.console import out

    out.file = sys.stdout
