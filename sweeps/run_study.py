"""What `python -m sweeps STUDY …` does: plan, submit teachers and workers, follow them, report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from analysis.suggest import nearest
from pipeline.cli.console import out, say
from pipeline.cli.environment import dry_run
from pipeline.config import Config, ConfigError
from pipeline.config.groups import GROUPS
from pipeline.launch.base import (
    CHOICE,
    FAILED,
    Launcher,
    LocalConfig,
    SlurmConfig,
    Task,
    environment_of,
    take_options,
)
from pipeline.launch.factory import make
from pipeline.launch.monitor import follow
from pipeline.launch.multirun import missing_teachers
from pipeline.outcome import KILLED, JobsFailed
from pipeline.session import Session, launch_of
from pipeline.storage.run_store import Store
from sweeps import summary
from sweeps.plan import commands_of, plan
from sweeps.study import Study, composed
from sweeps.study_file import OPTIONS, idle_options, study_of
from sweeps.tracking import TrialTarget, end, publish, study_target
from sweeps.trials import TrialStore
from sweeps.worker import work
from trainers.errors import Interrupted

VERB, WORKERS, LAUNCHER, JOBS = "sweep", "workers", "launcher", "jobs"
RESTARTS = 20  # of a worker of this machine that was killed


@dataclass(frozen=True)
class Request:
    """What was asked for, checked."""

    study: Study
    typed: tuple[str, ...]  # what makes the study: handed on to workers
    how: tuple[str, ...]  # what says how it is run: launcher and workers
    workers: int
    launcher: LocalConfig | SlurmConfig

    @property
    def root(self) -> Path:
        """Where studies are kept: beside the runs of the store."""
        return Path(self.study.config.runtime.store).resolve() / "studies"

    def trial_store(self) -> TrialStore:
        runtime = self.study.config.runtime
        return TrialStore(self.study, self.root, runtime.heartbeat_s, runtime.expiry_s)


def read(name: str, overrides: list[str]) -> Request:
    """The study of a name with what was typed beside it.

    Raises:
        ConfigError: all mistakes.
    """
    spoken = [
        f"{CHOICE}={t.partition('=')[2]}" if t.startswith(f"{LAUNCHER}=") else t for t in overrides
    ]
    launcher, rest, mistakes = take_options(spoken)
    claimed = set(spoken) - set(rest)
    typed = {k: v for k, _, v in (t.partition("=") for t in rest) if k in OPTIONS}
    own = [t for t in rest if t.partition("=")[0] not in (*OPTIONS, WORKERS)]
    mistyped = {text: hint for text in own if (hint := _mistyped(text))}
    mistakes += [f"{text}: no such option{hint}" for text, hint in mistyped.items()]
    own = [text for text in own if text not in mistyped]
    workers = ([t.partition("=")[2] for t in rest if t.startswith(f"{WORKERS}=")] or ["1"])[-1]
    if not re.fullmatch(r"0*[1-9]\d*", workers):
        mistakes.append(f"{WORKERS}={workers}: not a whole number >= 1")
        workers = "1"
    try:
        study = study_of(name, typed, own)
    except ConfigError as error:
        raise ConfigError(mistakes + error.errors) from error
    if mistakes := mistakes or idle_options(study):
        raise ConfigError(mistakes)
    if isinstance(launcher, LocalConfig) and launcher.jobs_parallel is None:
        launcher = LocalConfig(jobs_parallel=int(workers))
    kept = [*own, *(f"{key}={value}" for key, value in typed.items() if key != "trials")]
    how = tuple(t for t in overrides if t.split("=")[0] in (WORKERS, LAUNCHER) or t in claimed)
    return Request(study, tuple(kept), how, int(workers), launcher)


def _mistyped(text: str) -> str:
    """The option of studies that was meant by a word that is no option of the pipeline."""
    key = text.partition("=")[0].lstrip("+")
    if "." in key or key in (*GROUPS, *(field.name for field in fields(Config))):
        return ""
    return nearest(key, [*OPTIONS, WORKERS, LAUNCHER])


def run_study(name: str, overrides: list[str], *, cancel: bool = False) -> None:
    """Bring a study to the asked number of trials.

    Raises:
        ConfigError: mistakes in what was asked for.
        JobsFailed: a trial or a job failed; the others are kept.
        Interrupted: stopped after commits, or left to Slurm.
    """
    request = read(name, overrides)
    study = request.study
    there = (request.root / study.key).is_dir()
    if cancel:
        _cancel(request, overrides, there)
        return
    if dry_run(os.environ):
        plan(study, request.typed, request.workers, request.trial_store() if there else None)
        return
    session = Session.open(in_experiment(request.study), VERB, overrides)
    trial_store = request.trial_store()
    plan(request.study, request.typed, request.workers, trial_store)
    launcher = make(request.launcher, trial_store.folder / JOBS)
    trial_store.enqueue()
    target = study_target(trial_store, session.target)
    try:
        with session.launch(partial(_close, trial_store, target, session)):
            _follow(request, trial_store, launcher, session, target)
    finally:
        _report(request, trial_store, target)


def _cancel(request: Request, overrides: list[str], there: bool) -> None:
    """End what an earlier command left with its launcher, and the study's run."""
    launcher = make(request.launcher, request.root / request.study.key / JOBS)
    if not launcher.survives:
        say("nothing to cancel: workers of this machine end with the command that started them")
        say("(Ctrl-C there; if that was killed they go on alone, and `kill PID` ends one after a")
        say("commit); of a cluster: name its launcher, as in launcher=slurm")
        return
    say(f"cancelled {launcher.cancel()} jobs")
    if there:
        session = Session.open(in_experiment(request.study), VERB, overrides)
        trial_store = request.trial_store()
        target = study_target(trial_store, session.target)
        _close(trial_store, target, session, KILLED, {})
        _report(request, trial_store, target)


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
    session = Session.open(in_experiment(request.study), VERB, overrides)
    trial_store = request.trial_store()
    trial_store.enqueue()
    target = study_target(trial_store, session.target)
    work(trial_store, request.study.wanted, session, target)
    if len(trial_store.ended()) >= request.study.wanted:  # the command itself may have ended
        with session.launch(partial(_close, trial_store, target, session)):
            pass


def _follow(
    request: Request,
    trial_store: TrialStore,
    launcher: Launcher,
    session: Session,
    target: TrialTarget,
) -> None:
    """Workers until every trial has ended, or until they achieve nothing more."""
    wanted, failed, before = request.study.wanted, list[str](), -1
    while before < len(trial_store.ended()) < wanted:
        before = len(trial_store.ended())
        environment = environment_of(session.target, launch_of(target))
        launcher.submit(
            _tasks(request, session.store, environment, min(request.workers, wanted - before))
        )
        events = summary.Events(trial_store)
        status = follow(
            launcher, session, above=lambda: summary.live(trial_store), tell=events.tell
        )
        events.look()  # what has ended with the last job
        failed = [name for name, one in status.items() if one.state == FAILED]
        ended = [name for name, one in status.items() if one.cancelled]
        if ended and len(trial_store.ended()) < wanted:  # new workers would undo that
            names = ", ".join(ended)
            raise Interrupted(f"cancelled: {names}; run the same command to resume")
    done = len(trial_store.ended())
    told = [f"failed jobs: {', '.join(failed)}"] if failed else []
    if done < wanted:
        trials = [k for k, t in trial_store.trials().items() if t.state == TrialState.FAIL]
        told += [f"failed trials: {', '.join(trials)}"] if trials else []
        raise JobsFailed("; ".join([f"{done} of {wanted} trials have a value", *told]))
    if told:
        say(f"{told[0]}; others have done their trials")


def _tasks(
    request: Request, store: Store, environment: tuple[tuple[str, str], ...], workers: int
) -> list[Task]:
    """Absent teachers, and the workers that wait for them."""
    study = request.study
    teachers: dict[str, Task] = {}
    for overrides in commands_of(study, study.points or [{}]):
        teachers |= missing_teachers(composed(tuple(overrides)), overrides, store, environment)
    arguments = ("work", study.name, *request.typed, f"trials={study.wanted}")
    after = tuple(sorted(task.name for task in teachers.values()))
    return [
        *teachers.values(),
        *(
            Task(f"worker-{number}", "sweeps", arguments, environment, after, RESTARTS)
            for number in range(workers)
        ),
    ]


def _report(request: Request, trial_store: TrialStore, target: TrialTarget) -> None:
    """Print the results so far, and the commands that follow from them."""
    out.print(summary.results(trial_store))
    for line in summary.next_commands(trial_store, (*request.how, *request.typed), target):
        say(line)


def _close(
    trial_store: TrialStore,
    target: TrialTarget,
    session: Session,
    status: str,
    run_tags: Mapping[str, str],
) -> None:
    """Send the trials that have not arrived, and end the study's run."""
    if publish(trial_store, target, session):
        end(trial_store, target, status, run_tags)
