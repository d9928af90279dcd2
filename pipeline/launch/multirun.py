"""Many students with one command: `distill -m cfg=L0,L1 seed=0,1,2 hydra/launcher=submitit_slurm`.

All configurations are composed and checked before anything starts. Missing teachers and view banks
are separate jobs that the others depend on; finished runs are reused; a job that fails stops only
the jobs that depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext
from omegaconf import OmegaConf
from rich.table import Table

from analysis.words import counted, joined
from pipeline.cli.console import out, say
from pipeline.cli.environment import dry_run
from pipeline.config import Config, ConfigError
from pipeline.config.composition import composed
from pipeline.config.sweep import expand
from pipeline.identity import (
    KEY_LENGTH,
    absent_data,
    digest_of,
    own_teacher,
    run_key,
    teacher_numbers,
)
from pipeline.launch.base import Launcher, Status, Task, environment_of
from pipeline.launch.factory import make
from pipeline.launch.monitor import check_refused, follow, leaving_jobs
from pipeline.launch.options import CONFIGS, TARGETS, LocalConfig, SlurmConfig, take_options
from pipeline.outcome import JobsFailed, JobsLeft
from pipeline.ranks import check_alone
from pipeline.session import Session, launch_of, refusals, store_of
from pipeline.stages import preflight
from pipeline.stages.names import run_kind, run_name
from pipeline.stages.plan import duration, planned_students, show
from pipeline.stages.student import distill_student
from pipeline.stages.view_bank import bank_key, has_banks, is_made
from pipeline.storage.atomic import write_atomic
from pipeline.storage.run_record import RunResult
from pipeline.storage.run_store import Store
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.view import experiment_words
from trainers import metrics
from trainers.errors import Interrupted

VERB = "distill"


class Student(NamedTuple):
    """One student of a multirun."""

    name: str
    key: str | None  # None: not known before other runs are finished, or without the data set
    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class MultirunRequest:
    """A request of the command line, composed and checked."""

    students: list[Student]
    launcher: LocalConfig | SlurmConfig
    same: tuple[str, ...] = ()  # configurations that are no run of their own, a sentence each

    @property
    def runtime(self) -> Any:
        return self.students[0].config.runtime

    @property
    def folder(self) -> Path:
        """The folder of logs and job ids: the same for the same students."""
        identity = sorted(student.key or " ".join(student.overrides) for student in self.students)
        name = digest_of(identity)[:KEY_LENGTH]
        return Path(self.runtime.store).resolve() / "multirun" / name


def multirun(overrides: list[str], *, cancel: bool = False) -> None:
    """Run every student of the sweep.

    Raises:
        ConfigError: errors in any of the configurations, all of them.
        JobsFailed: not every job is finished; those that are, are kept.
        Interrupted: a stop was requested; the jobs ended after a checkpoint, or keep running on
            the cluster (JobsLeft).
    """
    request = read(overrides)
    if cancel:
        _cancel(request, overrides)
        return
    configs = [student.config for student in request.students]
    preflight.describe(configs)
    for sentence in request.same:
        say(sentence)
    show(planned_students(configs, store_of(request.runtime), settings(request.students)))
    if not dry_run(os.environ):
        jobs = [list(student.overrides) for student in request.students]
        _of_hydra(request.launcher, overrides).launch(jobs, 0)


def _of_hydra(config: LocalConfig | SlurmConfig, overrides: list[str]) -> HydraLauncher:
    """Hydra's launcher of a configuration (a class in hydra_plugins/asib_launcher.py)."""
    (target,) = [one for one, kind in TARGETS.items() if CONFIGS[kind] is type(config)]
    given = {"task": overrides, "hydra": []}
    launcher: Any = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(cast(Any, None), Callbacks()),  # jobs are composed here
        task_function=cast(Any, distill_student),
        config=OmegaConf.create({"hydra": {"overrides": given, "launcher": {"_target_": target}}}),
    )
    launcher.params = vars(config)  # not by OmegaConf, which would look for references in texts
    return cast(HydraLauncher, launcher)


def launch(
    jobs: Sequence[Sequence[str]], launcher: LocalConfig | SlurmConfig, overrides: list[str]
) -> list[JobReturn]:
    """Run the students of these overrides, which `overrides` have expanded to; their results, read
    from the store, with the best accuracy on validation as the value of a job.

    Raises:
        JobsFailed, Interrupted, ConfigError: as `multirun`.
    """
    students = [_student(tuple(one), composed(tuple(one))) for one in jobs]
    request = MultirunRequest(_named_apart(students), launcher)
    engine = make(launcher, request.folder)
    session = Session.open(students[0].config, VERB, overrides)
    with session.launch():
        _continue_launch(request, session.target)
        with _noted_until_it_ends(request, session.target):
            _run(request, engine, session)
    return [_returned(student, session.store) for student in request.students]


def _returned(student: Student, store: Store) -> JobReturn:
    """The result of a job as Hydra's launchers give it."""
    result = _result(store, student)
    value = None if result is None else result.metrics.get(metrics.BEST_VAL_TOP1)
    return JobReturn(
        overrides=list(student.overrides), status=JobStatus.COMPLETED, _return_value=value
    )


def settings(students: list[Student]) -> list[tuple[tuple[str, str], ...]]:
    """In which options each student differs from others, without those that its name has."""
    common = set.intersection(*(set(student.overrides) for student in students))
    named = ("cfg", "method", "seed")
    return [
        tuple(
            (key, value)
            for key, _, value in (text.partition("=") for text in student.overrides)
            if f"{key}={value}" not in common and key not in named
        )
        for student in students
    ]


def _cancel(request: MultirunRequest, overrides: list[str]) -> None:
    """Cancel the jobs that an earlier command left to a cluster, and end its launch run."""
    cancelled = make(request.launcher, request.folder).cancel()
    say(f"cancelled {counted(cancelled, 'job')}")
    session = Session.open(request.students[0].config, VERB, overrides)
    with suppress(Interrupted), session.launch():
        _continue_launch(request, session.target)
        with _noted_until_it_ends(request, session.target):
            raise Interrupted


def _launch_file(request: MultirunRequest, target: TrackingTarget) -> Path:
    return request.folder / f"launch-{target.key}"


def _continue_launch(request: MultirunRequest, target: TrackingTarget) -> None:
    """Take over the launch run of jobs that an earlier command left to a cluster."""
    file = _launch_file(request, target)
    if target.launch_id is None and file.is_file():
        run_id, _, command = file.read_text(errors="replace").partition("\n")
        target.continue_launch(run_id or None, command)


def _note_launch(request: MultirunRequest, launcher: Launcher, target: TrackingTarget) -> None:
    """Note the launch run of jobs that survive this process, for the next command."""
    if launcher.survives and (target.own_launch or target.launch_id is None):
        launch = f"{target.launch_id or ''}\n{target.command}"
        write_atomic(_launch_file(request, target), launch.encode())


@contextmanager
def _noted_until_it_ends(request: MultirunRequest, target: TrackingTarget) -> Iterator[None]:
    """While the command runs; afterwards the launch run is noted only if jobs are left."""
    try:
        yield
    except JobsLeft:
        raise
    except BaseException:
        _launch_file(request, target).unlink(missing_ok=True)
        raise
    _launch_file(request, target).unlink(missing_ok=True)


def read(overrides: list[str]) -> MultirunRequest:
    """The students of the sweep, each key once.

    Raises:
        ConfigError: all errors of all configurations and of the launcher's options.
    """
    launcher, rest, errors = take_options(overrides)
    students: list[tuple[tuple[str, ...], Config]] = []
    partly: list[Config] = []
    for one in _expanded(rest, errors):
        try:
            students.append((one, composed(one)))
        except ConfigError as error:
            errors += error.errors
            partly += [error.config] if error.config else []
    configs, dry = [config for _, config in students], dry_run(os.environ)
    errors += preflight.faults(configs, dry=dry) + preflight.faults(partly, dry=dry, keys=False)
    if configs and (errors or dry_run(os.environ)):
        errors += refusals(configs[0].runtime, VERB)
    for wanted in {c.runtime.ranks for c in configs} or {1}:
        try:
            check_alone(wanted, f"{VERB} -m", os.environ)
        except ConfigError as error:
            errors += error.errors
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    found: dict[str, Student] = {}
    same = []
    for one, config in students:
        student = _student(one, config)
        first = found.setdefault(student.key or " ".join(one), student)
        if first is not student:
            same.append(_of_one_run(first, student))
    return MultirunRequest(_named_apart(list(found.values())), launcher, tuple(dict.fromkeys(same)))


def _expanded(overrides: list[str], errors: list[str]) -> list[tuple[str, ...]]:
    try:
        return expand(overrides)
    except ConfigError as error:
        errors += error.errors
        return []


def _of_one_run(first: Student, other: Student) -> str:
    """The sentence on two configurations that are one experiment."""
    own = [text for text in other.overrides if text not in first.overrides]
    if not own:
        return f"given twice, run once: {first.name}"
    before = " ".join(text for text in first.overrides if text not in other.overrides)
    return f"one experiment, run once: {first.name} with {before} and with {' '.join(own)}"


def _student(overrides: tuple[str, ...], config: Config) -> Student:
    unknown = config.budget.matched_to is not None or (dry_run(os.environ) and absent_data(config))
    return Student(
        run_name(VERB, config), None if unknown else run_key(VERB, config), overrides, config
    )


def _named_apart(students: list[Student]) -> list[Student]:
    """With the key added to names that several students share."""
    found = [student.name for student in students]
    return [
        s._replace(name=f"{s.name}-{s.key or k}") if found.count(s.name) > 1 else s
        for k, s in enumerate(students)
    ]


def _run(request: MultirunRequest, launcher: Launcher, session: Session) -> None:
    finished = [s for s in request.students if s.key and _is_finished(session.store, s.key)]
    for student in finished:  # in this process, which replays them into the experiment
        distill_student(student.config, replace(session, device=torch.device("cpu")))
    environment = environment_of(session.target, launch_of(session.target))
    tasks = tasks_of([s for s in request.students if s not in finished], session.store, environment)
    status: dict[str, Status] = {}
    if tasks:
        _note_launch(request, launcher, session.target)
        with leaving_jobs(launcher):
            launcher.submit(tasks, session.stop)
            status = follow(launcher, session)
    out.print(report(request.students, status, session.store))
    report_command = ["python", "-m", "pipeline", "analyze", *experiment_words(session.target)]
    say(f"the report:   {joined(report_command)}")
    check_refused(status)
    failed = [name for name, one in status.items() if one.state == "failed"]
    if failed:
        of_all = f"{len(failed)} of {counted(len(status), 'job')}"
        raise JobsFailed(f"{of_all} failed: {', '.join(failed)}")


def tasks_of(
    students: list[Student], store: Store, environment: tuple[tuple[str, str], ...]
) -> list[Task]:
    """Tasks for missing teachers and view banks, then one for every student."""
    teachers: dict[str, Task] = {}
    found, names = [], {student.key: student.name for student in students}
    for student in students:
        after = missing_teachers(student.config, list(student.overrides), store, environment)
        teachers |= {key: task for key, task in after.items() if key not in teachers}
        waits = tuple(sorted(teachers[key].name for key in after))
        if (own := own_teacher(student.config)) and (key := run_key(VERB, own)) in names:
            waits += (names[key],)
        arguments = (VERB, *student.overrides)
        found.append(Task(student.name, "pipeline", arguments, environment, after=waits))
    return [*teachers.values(), *found]


def missing_teachers(
    config: Config, overrides: list[str], store: Store, environment: tuple[tuple[str, str], ...]
) -> dict[str, Task]:
    """By key, a task for every unfinished teacher of a configuration, followed by one for its view
    bank if that is missing."""
    found: dict[str, Task] = {}
    for number in teacher_numbers(config):
        key, bank = run_key("finetune", config, teacher=number), bank_key(config, number)
        given = (f"teacher={number}", *overrides)
        if store.run("finetune", key).whole_result() is None:
            name = f"{run_kind('finetune', config, number)}-{key}"
            found[key] = Task(name, "pipeline", ("finetune", *given), environment)
        if has_banks(config) and not is_made(store, bank):
            after = (found[key].name,) if key in found else ()
            name = f"{run_kind('bank', config, number)}-{bank}"
            found[bank] = Task(name, "pipeline", ("bank", *given), environment, after)
    return found


def _result(store: Store, student: Student) -> RunResult | None:
    return None if student.key is None else store.run(VERB, student.key).result()


def _is_finished(store: Store, key: str) -> bool:
    return store.run(VERB, key).whole_result() is not None


def report(students: list[Student], status: dict[str, Status], store: Store) -> Table:
    """All jobs with their results; what is finished is read from the store."""
    table = Table(box=None, pad_edge=False)
    for head in ("job", "key", "state", "val %", "test %", "time", "note"):
        justify: Literal["left", "right"] = "right" if head.endswith("%") else "left"
        table.add_column(head, justify=justify, overflow="fold")
    extra = [name for name in status if name not in {s.name for s in students}]
    for name in extra:
        table.add_row(name, "", status[name].state, "", "", "", status[name].note)
    for student in students:
        result, one = _result(store, student), status.get(student.name)
        values = {} if result is None else result.metrics
        numbers = [
            f"{100 * values[key]:.2f}" if values.get(key) is not None else ""
            for key in (metrics.BEST_VAL_TOP1, metrics.TEST_TOP1)
        ]
        state = one.state if one else "reused"
        note = one.note if one and one.state != "finished" else ""
        time = duration(values[metrics.RUN_SECONDS]) if values else ""
        table.add_row(student.name, student.key or "later", state, *numbers, time, note)
    return table
