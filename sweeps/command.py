"""What `python -m sweeps STUDY …` does: plan, submit teachers and workers, follow them, report."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from pipeline.config import ConfigError, compose
from pipeline.console import out, say
from pipeline.fleet import JobsFailed, follow
from pipeline.launcher import (
    CHOICE,
    FAILED,
    Launcher,
    LocalConfig,
    SlurmConfig,
    Task,
    environment_of,
    make,
    take_options,
)
from pipeline.multirun import absent_teachers
from pipeline.planning import FINISHED, Planned, duration, planned_students, show
from pipeline.publish import last_line
from pipeline.shell import Shell, store_of
from pipeline.shortcuts import dry_run
from pipeline.store import Store
from sweeps import report
from sweeps.board import Board
from sweeps.runs import TrialDestination, publish, study_destination
from sweeps.study import Study, study_of
from sweeps.worker import work
from trainers.loop import Interrupted

STUDY_OPTIONS = ("trials", "seeds", "sampler", "pruner")
RESTARTS = 20  # of a worker of this machine that was killed


@dataclass(frozen=True)
class Request:
    """What was asked for, checked."""

    study: Study
    typed: tuple[str, ...]  # what makes the study: handed on to workers
    workers: int
    launcher: LocalConfig | SlurmConfig

    @property
    def root(self) -> Path:
        """Where studies are kept: beside the runs of the store."""
        return Path(self.study.config.runtime.store).resolve() / "studies"

    def board(self) -> Board:
        runtime = self.study.config.runtime
        return Board(self.study, self.root, runtime.heartbeat_s, runtime.expiry_s)


def read(name: str, overrides: list[str]) -> Request:
    """The study of a name with what was typed beside it.

    Raises:
        ConfigError: all mistakes.
    """
    spoken = [f"{CHOICE}={t.partition('=')[2]}" if t.startswith("launcher=") else t
              for t in overrides]  # fmt: skip
    launcher, rest, mistakes = take_options(spoken)
    typed = {k: v for k, _, v in (t.partition("=") for t in rest) if k in STUDY_OPTIONS}
    own = [t for t in rest if t.partition("=")[0] not in (*STUDY_OPTIONS, "workers")]
    workers = ([t.partition("=")[2] for t in rest if t.startswith("workers=")] or ["1"])[-1]
    if not workers.isdigit() or int(workers) < 1:
        mistakes.append(f"workers={workers}: not a whole number >= 1")
        workers = "1"
    try:
        study = study_of(name, typed, own)
    except ConfigError as error:
        raise ConfigError(mistakes + error.mistakes) from error
    if mistakes:
        raise ConfigError(mistakes)
    if isinstance(launcher, LocalConfig) and launcher.jobs_parallel is None:
        launcher = LocalConfig(jobs_parallel=int(workers))
    kept = [*own, *(f"{key}={value}" for key, value in typed.items() if key != "trials")]
    return Request(study, tuple(kept), int(workers), launcher)


def run_study(name: str, overrides: list[str], *, cancel: bool = False) -> None:
    """Bring a study to the asked number of trials.

    Raises:
        ConfigError: mistakes in what was asked for.
        JobsFailed: a trial or a job failed; the others are kept.
        Interrupted: stopped after commits, or left to Slurm.
    """
    request = read(name, overrides)
    if cancel:
        where = request.root / request.study.key / "jobs"
        say(f"cancelled {make(request.launcher, where).cancel()} jobs")
        return
    if dry_run(os.environ):
        there = request.root / request.study.key
        _plan(request, request.board() if there.is_dir() else None)
        return
    board = request.board()
    _plan(request, board)
    launcher = make(request.launcher, board.folder / "jobs")
    shell = Shell.open(in_experiment(request.study), "sweep", overrides)
    board.enqueue()
    destination = study_destination(board, shell.destination)
    try:
        _follow(request, board, launcher, shell, destination)
    except BaseException as error:
        left = isinstance(error, Interrupted) and launcher.survives  # its workers go on
        status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
        _end(request, board, destination, shell, None if left else status)
        raise
    _end(request, board, destination, shell, "FINISHED")


def in_experiment(study: Study) -> Any:
    """The base configuration, in the experiment of its question unless another was named."""
    config, given = study.config, ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
    if config.runtime.experiment is None and not any(os.environ.get(name) for name in given):
        runtime = replace(config.runtime, experiment=f"asib/{study.name}")
        return replace(config, runtime=runtime)
    return config


def run_worker(name: str, overrides: list[str]) -> None:
    """One worker in this process: `python -m sweeps work STUDY …`, as the launcher starts it.

    Raises:
        Interrupted: asked to stop; another worker goes on with the trial.
    """
    request = read(name, overrides)
    board = request.board()
    shell = Shell.open(in_experiment(request.study), "sweep", overrides)
    board.enqueue()
    work(board, request.study.wanted, shell, study_destination(board, shell.destination))


def _follow(
    request: Request, board: Board, launcher: Launcher, shell: Shell, destination: TrialDestination
) -> None:
    open_trials = request.study.wanted - len(board.ended())
    if open_trials > 0:
        try:
            destination.parent_id()
        except Exception as error:  # noqa: BLE001 - told; workers open it when it is back
            say(f"the tracking store cannot be reached ({last_line(error)[:120]})")
        environment = environment_of(shell.destination, destination.launch_id)
        launcher.submit(
            _tasks(request, shell.store, environment, min(request.workers, open_trials))
        )
        status = follow(
            launcher, shell, above=lambda: report.live(board), tell=report.Events(board).tell
        )
        failed = [name for name, one in status.items() if one.state == FAILED]
        if failed:
            raise JobsFailed(f"{len(failed)} of {len(status)} jobs failed: {', '.join(failed)}")
    failures = [k for k, t in board.trials().items() if t.state == TrialState.FAIL]
    done = len(board.ended())
    if done < request.study.wanted:
        raise JobsFailed(
            f"{done} of {request.study.wanted} trials have a value"
            + (f"; failed: {', '.join(failures)}" if failures else "")
        )


def _tasks(
    request: Request, store: Store, environment: tuple[tuple[str, str], ...], workers: int
) -> list[Task]:
    """Absent teachers, and the workers that wait for them."""
    study = request.study
    teachers: dict[str, Task] = {}
    for point in study.points or [{}]:
        overrides = study.overrides(point, study.seeds[0])
        teachers |= absent_teachers(compose(overrides), overrides, store, environment)
    arguments = ("work", study.name, *request.typed, f"trials={study.wanted}")
    after = tuple(sorted(task.name for task in teachers.values()))
    return [
        *teachers.values(),
        *(
            Task(f"worker-{number}", "sweeps", arguments, environment, after, RESTARTS)
            for number in range(workers)
        ),
    ]


def _end(
    request: Request, board: Board, destination: TrialDestination, shell: Shell, status: str | None
) -> None:
    """Send what is missing, end the study's run (None: leave it running), and report."""
    sent = publish(board, destination, shell)
    if sent and status is not None and (destination.launch_id is not None or board.ended()):
        destination.client().set_terminated(destination.parent_id(), status)
    out.print(report.best(board))
    for line in report.next_commands(board, request.typed, destination):
        say(line)


def _plan(request: Request, board: Board | None) -> None:
    """New, reused and to resume, with the time that finished runs of the kind say."""
    study, store = request.study, store_of(request.study.config.runtime)
    configs = [
        compose(study.overrides(point, seed)) for point in study.points for seed in study.seeds
    ]
    stages = planned_students(configs or [study.config], store)
    show(stages if configs else [])
    say(f"study    {study.key}: {study.wanted} trials x {len(study.seeds)} seeds, {study.sampler}")
    if board is not None:
        say(f"so far   {report.counted(board)}")
        say(f"storage  {board.where}")
    drawn = study.wanted - max(len(study.points), 0 if board is None else len(board.begun()))
    if study.sampler != "grid" and drawn > 0:
        each = _time_of_a_run(stages)
        about = duration(None if each is None else each * drawn * len(study.seeds))
        say(f"to draw  {drawn} more trials, about {about}")


def _time_of_a_run(stages: list[Planned]) -> float | None:
    times = [
        s.seconds for s in stages
        if s.name.startswith("distill") and s.state != FINISHED and s.seconds is not None
    ]  # fmt: skip
    return max(times, default=None)
