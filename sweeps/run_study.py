"""Running a study: plan, submit teachers and workers, follow them, report."""

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
from analysis.words import counted
from pipeline.cli.console import out, say
from pipeline.cli.environment import dry_run
from pipeline.cli.hydra_flags import Shown
from pipeline.config import Config, ConfigError
from pipeline.config.composition import composed
from pipeline.config.groups import GROUPS
from pipeline.identity import absent_data
from pipeline.launch.base import FAILED, Launcher, Task, environment_of
from pipeline.launch.factory import make
from pipeline.launch.monitor import check_refused, follow, leaving_jobs
from pipeline.launch.multirun import missing_teachers
from pipeline.launch.options import CHOICE, LocalConfig, SlurmConfig, take_options
from pipeline.outcome import KILLED, JobsFailed
from pipeline.session import Session, launch_of, refusals
from pipeline.show import show
from pipeline.stages import preflight
from pipeline.storage.run_store import Store
from pipeline.tracking.target import named_experiment
from sweeps import summary
from sweeps.plan import commands_of, plan
from sweeps.study import Study
from sweeps.study_file import OPTIONS, ends, idle_options, study_of
from sweeps.tracking import NestedTarget, end, publish, study_target
from sweeps.trials import TrialStore
from sweeps.worker import work
from trainers.errors import Interrupted

VERB, WORKERS, LAUNCHER, JOBS = "sweep", "workers", "launcher", "jobs"
RESTARTS = 20  # of a worker of this machine that was killed


@dataclass(frozen=True)
class StudyRequest:
    """The study and how it is run, checked."""

    study: Study
    given: tuple[str, ...]  # overrides and options that define the study: passed to workers
    execution: tuple[str, ...]  # options of how it is run: launcher and workers
    workers: int
    launcher: LocalConfig | SlurmConfig

    @property
    def root(self) -> Path:
        """The folder of all studies, next to the runs of the store."""
        return Path(self.study.config.runtime.store).resolve() / "studies"

    @property
    def begun(self) -> bool:
        """Whether the study has a folder. Reads the data set."""
        return (self.root / self.study.key).is_dir()

    def trial_store(self) -> TrialStore:
        runtime = self.study.config.runtime
        return TrialStore(self.study, self.root, runtime.heartbeat_s, runtime.expiry_s)


def read(name: str, overrides: list[str]) -> StudyRequest:
    """The study of a name with the options and overrides of the command.

    Raises:
        ConfigError: all errors of both.
    """
    texts = [
        f"{CHOICE}={t.partition('=')[2]}" if t.startswith(f"{LAUNCHER}=") else t for t in overrides
    ]
    launcher, rest, errors = take_options(texts)
    claimed = set(texts) - set(rest)
    given = {k: v for k, _, v in (t.partition("=") for t in rest) if k in OPTIONS}
    own = [t for t in rest if t.partition("=")[0] not in (*OPTIONS, WORKERS)]
    unknown = {text: hint for text in own if (hint := _hint(text))}
    errors += [f"{text}: no such option{hint}" for text, hint in unknown.items()]
    own = [text for text in own if text not in unknown]
    workers = ([t.partition("=")[2] for t in rest if t.startswith(f"{WORKERS}=")] or ["1"])[-1]
    if not re.fullmatch(r"0*[1-9]\d*", workers):
        errors.append(f"{WORKERS}={workers}: not a whole number >= 1")
        workers = "1"
    try:
        study = study_of(name, given, own)
    except ConfigError as error:
        found = preflight.with_the_rest(error, VERB)
        raise ConfigError(errors + found.errors) from error
    if errors := errors or idle_options(study):
        raise ConfigError(errors)
    if isinstance(launcher, LocalConfig) and launcher.jobs_parallel is None:
        launcher = replace(launcher, jobs_parallel=int(workers))
    kept = [*own, *(f"{key}={value}" for key, value in given.items() if key != "trials")]
    execution = tuple(
        t for t in overrides if t.split("=")[0] in (WORKERS, LAUNCHER) or t in claimed
    )
    return StudyRequest(study, tuple(kept), execution, int(workers), launcher)


def _hint(text: str) -> str:
    """The nearest option of studies, for an override that is no option of the pipeline."""
    key = text.partition("=")[0].lstrip("+")
    if "." in key or key in (*GROUPS, *(field.name for field in fields(Config))):
        return ""
    return nearest(key, [*OPTIONS, WORKERS, LAUNCHER])


def configurations(study: Study) -> list[Config]:
    """The base and every configuration that is known beforehand, at the first seed."""
    known = study.known_params or list(ends(study))
    return [study.config, *(composed(tuple(one)) for one in commands_of(study, known))]


def faults(study: Study) -> list[str]:
    """What would stop the study later than now, one sentence each."""
    return preflight.faults(configurations(study), dry=dry_run(os.environ))


def run_study(name: str, overrides: list[str], *, cancel: bool = False) -> None:
    """Run a study until it has the wanted number of trials.

    Raises:
        ConfigError: errors of the study or the command.
        JobsFailed: a trial or a job failed; the others are kept.
        Interrupted: stopped after checkpoints, or left to Slurm.
    """
    request = read(name, overrides)
    study = request.study
    if cancel:
        _cancel(request, overrides)
        return
    found = faults(study)
    if dry_run(os.environ):
        if errors := [*found, *refusals(in_experiment(study).runtime, VERB)]:
            raise ConfigError(errors)
        preflight.describe(configurations(study))
        begun = not absent_data(study.config) and request.begun
        plan(study, request.given, request.workers, request.trial_store() if begun else None)
        return
    session = Session.open(in_experiment(request.study), VERB, overrides, found)
    preflight.describe(configurations(study))
    trial_store = request.trial_store()
    plan(request.study, request.given, request.workers, trial_store)
    launcher = make(request.launcher, trial_store.folder / JOBS)
    trial_store.enqueue()
    target = study_target(trial_store, session.target)
    try:
        with session.launch(partial(_close, trial_store, target, session)):
            _follow(request, trial_store, launcher, session, target)
    finally:
        _report(request, trial_store, target)


def show_study(name: str, overrides: list[str], wanted: Shown) -> None:
    """Print the base of a study, which all its trials share, as `--cfg` and `--info` ask for.

    Raises:
        ConfigError: errors of the study or the command.
    """
    request = read(name, overrides)
    launcher = [t for t in request.execution if t.lstrip("+").startswith(("hydra/", "hydra."))]
    show("distill", [*request.study.base, f"seed={request.study.seeds[0]}", *launcher], wanted)


def _cancel(request: StudyRequest, overrides: list[str]) -> None:
    """End the jobs of an earlier command, and the run of the study."""
    launcher = make(request.launcher, request.root / request.study.key / JOBS)
    if not launcher.survives:
        say("nothing to cancel: workers of this machine end with the command that started them")
        say("(Ctrl-C there; if it was killed its workers continue, and `kill PID` ends one after a")
        say("checkpoint); for a cluster give its launcher, as in hydra/launcher=submitit_slurm")
        return
    say(f"cancelled {counted(launcher.cancel(), 'job')}")
    if request.begun:
        session = Session.open(in_experiment(request.study), VERB, overrides)
        trial_store = request.trial_store()
        target = study_target(trial_store, session.target)
        _close(trial_store, target, session, KILLED, {})
        _report(request, trial_store, target)


def in_experiment(study: Study) -> Any:
    """The base configuration, in the experiment of the study's name unless another was given."""
    config = study.config
    if config.runtime.experiment is None and named_experiment(os.environ) is None:
        runtime = replace(config.runtime, experiment=f"asib/{study.name}")
        return replace(config, runtime=runtime)
    return config


def run_worker(name: str, overrides: list[str]) -> None:
    """One worker in this process: `python -m sweeps work STUDY …`, as the launcher starts it.

    Raises:
        Interrupted: a stop was requested; another worker resumes the trial.
    """
    request = read(name, overrides)
    config, found = in_experiment(request.study), faults(request.study)
    session = Session.open(config, VERB, overrides, found)
    trial_store = request.trial_store()
    trial_store.enqueue()
    target = study_target(trial_store, session.target)
    work(trial_store, request.study.wanted, session, target)
    if len(trial_store.ended()) >= request.study.wanted:  # the command itself may have ended
        with session.launch(partial(_close, trial_store, target, session)):
            pass


def _follow(
    request: StudyRequest,
    trial_store: TrialStore,
    launcher: Launcher,
    session: Session,
    target: NestedTarget,
) -> None:
    """Submit and follow workers until every trial has ended, or none ends any more."""
    wanted, failed, before = request.study.wanted, list[str](), -1
    while before < len(trial_store.ended()) < wanted:
        before = len(trial_store.ended())
        environment = environment_of(session.target, launch_of(target))
        tasks = _tasks(request, session.store, environment, min(request.workers, wanted - before))
        events = summary.Events(trial_store)
        with leaving_jobs(launcher):
            launcher.submit(tasks, session.stop)
            status = follow(
                launcher, session, above=lambda: summary.live(trial_store), tell=events.poll
            )
        events.look()  # what has ended with the last job
        failed = [name for name, one in status.items() if one.state == FAILED]
        if len(trial_store.ended()) < wanted:
            check_refused(status)
        ended = [name for name, one in status.items() if one.cancelled]
        if ended and len(trial_store.ended()) < wanted:  # new workers would undo that
            names = ", ".join(ended)
            raise Interrupted(f"cancelled: {names}; run the same command to resume")
    done = len(trial_store.ended())
    reasons = [f"failed jobs: {', '.join(failed)}"] if failed else []
    if done < wanted:
        trials = [k for k, t in trial_store.trials().items() if t.state == TrialState.FAIL]
        reasons += [f"failed trials: {', '.join(trials)}"] if trials else []
        raise JobsFailed("; ".join([f"trials with a value: {done} of {wanted}", *reasons]))
    if reasons:
        say(f"{reasons[0]}; other workers finished their trials")


def _tasks(
    request: StudyRequest, store: Store, environment: tuple[tuple[str, str], ...], workers: int
) -> list[Task]:
    """Tasks of absent teachers, and of the workers that wait for them."""
    study = request.study
    teachers: dict[str, Task] = {}
    for overrides in commands_of(study, study.known_params or [{}]):
        teachers |= missing_teachers(composed(tuple(overrides)), overrides, store, environment)
    arguments = ("work", study.name, *request.given, f"trials={study.wanted}")
    after = tuple(sorted(task.name for task in teachers.values()))
    return [
        *teachers.values(),
        *(
            Task(f"worker-{number}", "sweeps", arguments, environment, after, RESTARTS)
            for number in range(workers)
        ),
    ]


def _report(request: StudyRequest, trial_store: TrialStore, target: NestedTarget) -> None:
    """Print the results so far, and the commands that follow from them."""
    out.print(summary.results(trial_store))
    for line in summary.next_commands(trial_store, (*request.execution, *request.given), target):
        say(line)


def _close(
    trial_store: TrialStore,
    target: NestedTarget,
    session: Session,
    status: str,
    run_tags: Mapping[str, str],
) -> None:
    """Send the trials that have not arrived, and end the study's run."""
    if publish(trial_store, target, session):
        end(trial_store, target, status, run_tags)
