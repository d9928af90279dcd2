"""The verbs that train: main, finetune, bank and distill. DRY_RUN=1 prints their plan instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from pipeline.cli.environment import dry_run, listed_teachers
from pipeline.config import Config, ConfigError, compose
from pipeline.identity import run_key
from pipeline.ranks import leads
from pipeline.session import Session, handlers_kept, refusals, store_of
from pipeline.stages import plan, preflight
from pipeline.stages.matched_budget import standards
from pipeline.stages.plan import Planned, planned_banks, planned_students, planned_teachers
from pipeline.stages.student import distill_student
from pipeline.stages.teacher import finetune_teacher, make_bank
from pipeline.storage.run_record import RunResult
from pipeline.storage.run_store import Store

CONTROLS = ("CE", "KD")  # what the main job compares its student with


def main_command(overrides: list[str]) -> None:
    """The teachers of a bench, a student, the controls, and the report."""
    of_other = any(o.startswith("method=") for o in overrides)  # its options are no rung's
    own = ("cfg=", "method=", "method.") if of_other else ("cfg=",)
    rest = [o for o in overrides if not o.startswith(own)]
    controls = [composed("main", [*rest, f"cfg={cfg}"]) for cfg in CONTROLS]

    def work(config: Config, session: Session) -> None:
        from analysis.selection.filters import RunFilter  # takes pandas, which no other verb that
        from pipeline.analyze import analyse  # trains needs, and no plan

        for number in range(len(config.teacher)):
            finetune_teacher(config, number, session)
        _student(config, session)
        session.target.register = None  # the student is registered, not its controls
        for control in controls:
            if run_key("distill", control) != run_key("distill", config):
                found = distill_student(control, session).metrics
                session.target.carry(f"control_{control.cfg}", found)
        if session.ranks.leads:
            analyse(session.target, session.overrides, RunFilter(config.bench.name))

    def faults(config: Config) -> list[str]:
        all_ = preflight.faults([config, *controls], dry=dry_run(os.environ))
        teachers = range(len(config.teacher))  # a method that reads none is given them all the same
        more = preflight.faults([config], teachers, dry=dry_run(os.environ))
        return list(dict.fromkeys([*all_, *more]))

    _train(
        "main",
        overrides,
        work,
        lambda config, store: planned_students([config, *controls], store),
        faults,
        lambda config: preflight.describe([config, *controls]),
    )


def distill_command(overrides: list[str]) -> None:
    """One student; missing teachers and view banks are made first."""

    def planned(config: Config, store: Store) -> list[Planned]:
        return planned_students([*standards(config, overrides), config], store)

    def faults(config: Config) -> list[str]:
        pair = standards(config, overrides)
        return preflight.faults([*pair, config], dry=dry_run(os.environ))

    _train("distill", overrides, _student, planned, faults)


def distill(overrides: Sequence[str]) -> RunResult:
    """Train the student of these overrides, with the teachers that it lacks, or reuse it: what
    `python -m pipeline distill` does, from Python. The result has `metrics` and, by epoch,
    `history`.

    Raises:
        ConfigError: errors in the overrides, or what would stop the run later: all of them.
        Interrupted: Ctrl-C, after a checkpoint; the same call resumes.
    """
    config = composed("distill", list(overrides))
    found = preflight.faults([*standards(config, list(overrides)), config])
    with (
        handlers_kept(),
        Session.open(config, "distill", list(overrides), found).launch() as session,
    ):
        preflight.describe([config])
        result = distill_student(config, session)
        session.target.carry("student", result.metrics)
    return result


def _student(config: Config, session: Session) -> None:
    """One student, whose numbers the launch run shows."""
    session.target.carry("student", distill_student(config, session).metrics)


def finetune_command(overrides: list[str]) -> None:
    """The teachers that teacher=all, teacher=0,1 or teacher=NAME,NAME lists."""
    _train_teachers("finetune", overrides, finetune_teacher, planned_teachers)


def bank_command(overrides: list[str]) -> None:
    """The view banks of the teachers that teacher=all, teacher=0,1 or teacher=NAME,NAME lists."""
    _train_teachers("bank", overrides, make_bank, planned_banks)


def _train_teachers(
    verb: str,
    overrides: list[str],
    train: Callable[[Config, int, Session], object],
    planned: Callable[[Config, Sequence[int], Store], list[Planned]],
) -> None:
    which, rest = listed_teachers(overrides)

    def work(config: Config, session: Session) -> None:
        for number in _numbers(which, config):
            train(config, number, session)

    _train(
        verb,
        rest,
        work,
        lambda config, store: planned(config, _numbers(which, config), store),
        lambda config: preflight.faults([config], _numbers(which, config), dry=dry_run(os.environ)),
    )


def _numbers(which: str, config: Config) -> list[int]:
    """The numbers of teachers that teacher=`which` names."""
    numbers = list(range(len(config.teacher)))
    wanted = numbers if which == "all" else [int(part) for part in which.split(",")]
    if not set(wanted) <= set(numbers):
        allowed = ", ".join(["all", *map(str, numbers)])
        raise ConfigError([f"teacher={which}: unknown (allowed: {allowed}, names of teachers)"])
    return wanted


def composed(verb: str, overrides: list[str]) -> Config:
    """The configuration of a command.

    Raises:
        ConfigError: its errors, with what else would stop the command.
    """
    try:
        return compose(overrides)
    except ConfigError as error:
        raise preflight.with_the_rest(error, verb) from error


def _train(
    verb: str,
    overrides: list[str],
    work: Callable[[Config, Session], object],
    planned: Callable[[Config, Store], list[Planned]],
    faults: Callable[[Config], list[str]],
    describe: Callable[[Config], None] = lambda config: preflight.describe([config]),
) -> None:
    """Compose the configuration, find what would stop the command later, and do the work within a
    launch run, or print the plan."""
    config = composed(verb, overrides)
    found = faults(config)
    if dry_run(os.environ):
        if errors := [*found, *refusals(config.runtime, verb)]:
            raise ConfigError(errors)
        if leads(config.runtime.ranks, os.environ):
            describe(config)
            plan.show(planned(config, store_of(config.runtime)))
        return
    with Session.open(config, verb, overrides, found).launch() as session:
        describe(config)
        work(config, session)
