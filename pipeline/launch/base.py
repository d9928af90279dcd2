"""Launchers: their options, and the tasks that they run and report on.

A launcher is chosen with `hydra/launcher=NAME`. Its options are `hydra.launcher.KEY=VALUE`; the
defaults are in conf/hydra/launcher/NAME.yaml.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from analysis.stores.address import redacted
from analysis.suggest import nearest
from pipeline.cli.arguments import LAUNCHER
from pipeline.config.fields import build_dataclass
from pipeline.config.groups import CONF
from pipeline.config.yaml_file import read_yaml
from pipeline.tracking.target import LAUNCH, TrackingTarget
from trainers.options import option

CHOICE, PREFIX = LAUNCHER, "hydra.launcher."
NOT_RUN = "not run: a job that it depends on has failed"

WAITING, RUNNING, DONE, FAILED, HALTED = "waiting", "running", "finished", "failed", "stopped"
ENDED = (DONE, FAILED, HALTED)


@dataclass
class LocalConfig:
    """Jobs as processes of this machine."""

    jobs_parallel: int | None = option(None, "how many run at once (null: one per GPU)", low=1)


@dataclass
class SlurmConfig:
    """Jobs by Slurm."""

    partition: str | None = option(None, "partition (null: the site's default)")
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    constraint: str | None = option(None, "features that a node must have")
    gres: str | None = option("gpu:1", "generic resources of a job, such as gpu:1 or shard:1")
    cpus_per_task: int = option(4, "CPU cores", low=1)
    mem_gb: float = option(16.0, "memory in GB", low=0.1)
    timeout_min: int = option(240, "wall time in minutes", low=1)
    array_parallelism: int = option(16, "jobs of an array that run at once", low=1)
    setup: list[str] = option([], "shell lines before the job")
    signal_delay_s: int = option(120, "seconds between the signal and the kill", low=1)
    requeue: bool = option(True, "preempted and timed-out jobs are requeued")
    max_num_timeout: int = option(100, "how often a job is requeued at most", low=0)
    poll_s: float = option(5.0, "seconds between two queries of the queue", low=0.1)


CONFIGS: dict[str, type] = {"local": LocalConfig, "slurm": SlurmConfig}


@dataclass(frozen=True)
class Task:
    """A command of this project, `python -m PROGRAM ARGUMENTS`, run as a separate process."""

    name: str
    program: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()  # names of tasks that must finish first
    restarts: int = 0  # how often it is restarted after a kill


@dataclass(frozen=True)
class Status:
    """The state of a task."""

    state: str = WAITING
    note: str = ""
    cancelled: bool = False  # it failed because it was cancelled


class Launcher(Protocol):
    """Runs the tasks of one command; `folder` holds their logs and the ids of jobs."""

    folder: Path
    survives: bool  # whether tasks keep running when this process ends

    def submit(self, tasks: list[Task]) -> None:
        """Queue these tasks; a task whose name is already running is followed, not started."""

    def poll(self) -> dict[str, Status]:
        """The present status by name."""

    def cancel(self) -> int:
        """Cancel all submitted tasks, those of earlier commands too; return their number."""

    def log_of(self, name: str) -> Path:
        """The file with the output of a task."""


def take_options(
    overrides: list[str],
) -> tuple[LocalConfig | SlurmConfig, list[str], list[str]]:
    """(the launcher's configuration, the other overrides, errors in the launcher's options)."""
    errors: list[str] = []
    chosen, given, rest = "local", dict[str, str](), []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key == CHOICE:
            chosen = value
        elif key.startswith(PREFIX):
            given[key.removeprefix(PREFIX)] = value
        else:
            rest.append(text)
    if chosen not in CONFIGS:
        errors.append(f"{CHOICE}={chosen}: unknown{nearest(chosen, list(CONFIGS), True)}")
        return LocalConfig(), rest, errors
    return _configured(chosen, given, errors), rest, errors


def _configured(chosen: str, given: dict[str, str], errors: list[str]) -> LocalConfig | SlurmConfig:
    cls = CONFIGS[chosen]
    known = {field.name: str(field.type) for field in fields(cls)}
    path = CONF / "hydra" / "launcher" / f"{chosen}.yaml"
    values = read_yaml(path)
    for key, text in given.items():
        if key not in known:
            owner = next(
                (n for n, c in CONFIGS.items() if key in {f.name for f in fields(c)}), None
            )
            hint = nearest(key, list(known), show_all=True)
            if owner is not None:
                hint = f", but of {CHOICE}={owner}: give that too"
            errors.append(f"{PREFIX}{key}: no option of {CHOICE}={chosen}{hint}")
            continue
        if not text.strip():
            errors.append(f"{PREFIX}{key}=: empty (null: none)")
            continue
        try:
            values[key] = _value(text, known[key])
        except HydraException as error:
            reason = str(error).splitlines()[0]
            errors.append(f"{PREFIX}{key}={text}: cannot be read: {reason}")
    return cast(LocalConfig | SlurmConfig, build_dataclass(cls, values, PREFIX, errors))


def _value(text: str, annotation: str) -> Any:
    """The value of an option: text as it is, the rest read by Hydra's grammar."""
    if annotation.startswith("str") and text != "null":
        return text
    return OverridesParser.create().parse_override(f"x={text}").value()


def environment_of(target: TrackingTarget, run_id: str | None) -> tuple[tuple[str, str], ...]:
    """The environment variables that give a task its tracking store, experiment and parent run.

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
    return tuple(found.items())


def execute(task: Task, more: Iterable[tuple[str, str]] = ()) -> int:
    """Run a task in this process; return its exit code."""
    os.environ.update([*task.environment, *more])
    main = importlib.import_module(f"{task.program}.__main__").main
    return int(main(list(task.arguments)))


def redirect(path: Path) -> None:
    """Append the output of this process to a file from now on."""
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="replace")  # noqa: SIM115
    from pipeline.cli.console import out

    out.file = sys.stdout
