"""The command line: python -m pipeline VERB key=value …

Exit codes (pipeline/outcome.py): 0 done or reused, 1 failed, 2 an error of the user, 75 interrupted
after a checkpoint (run the same command to resume).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from analysis.suggest import nearest
from pipeline.cli import help
from pipeline.cli.arguments import (
    CANCEL,
    HELP,
    HELP_FLAGS,
    LAUNCHER,
    VERSION,
    is_multirun,
    overrides_of,
    wants_help,
    without_dry_run,
)
from pipeline.outcome import DONE, USER_ERROR, report

if TYPE_CHECKING:
    from pipeline.stages.plan import Planned

OK, MISTAKE = DONE.exit_code, USER_ERROR.exit_code


def main(arguments: list[str]) -> int:
    """Run one verb; return the exit code."""
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    verb, *rest = without_dry_run(arguments) or [HELP]
    if verb == VERSION:
        print(help.version())
    elif verb in (HELP, *HELP_FLAGS):
        print(help.page())
    elif verb not in VERBS:
        print(f"no verb {verb!r}{nearest(verb, list(VERBS), show_all=True)}", file=sys.stderr)
        return MISTAKE
    elif wants_help(rest):
        print(help.of_verb(verb))
    elif not is_multirun(rest):
        return guarded(lambda: VERBS[verb](overrides_of(verb, rest)))
    elif verb == "distill":
        return guarded(lambda: _several(overrides_of(verb, rest), cancel=CANCEL in rest))
    else:
        print(f"{verb}: only distill runs several (-m, {LAUNCHER}=…)", file=sys.stderr)
        return MISTAKE
    return OK if arguments else MISTAKE


def guarded(run: Callable[[], None]) -> int:
    """Run a verb; print what ended it and return the exit code."""
    try:
        run()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - reported, by its outcome
        return report(error)
    return OK


def _in_launch(
    verb: str,
    overrides: list[str],
    work: Callable[..., object],
    plan: Callable[..., list[Planned]] | None = None,
) -> None:
    """Compose the configuration and do the work within a launch run. With DRY_RUN show the plan
    instead."""
    from pipeline.cli.environment import dry_run
    from pipeline.config import compose
    from pipeline.session import Session, choose_device, store_of

    config = compose(overrides)
    if plan is not None and dry_run(os.environ):
        from pipeline.stages.plan import show

        choose_device(config.runtime)
        show(plan(config, store_of(config.runtime)))
        return
    with Session.open(config, verb, overrides).launch() as session:
        work(config, session)


def _several(overrides: list[str], cancel: bool) -> None:
    from pipeline.launch.multirun import multirun

    multirun(overrides, cancel=cancel)


def _finetune(overrides: list[str]) -> None:
    from pipeline.stages.plan import planned_teachers
    from pipeline.stages.student import finetune_teacher

    _for_teachers("finetune", overrides, finetune_teacher, planned_teachers)


def _bank(overrides: list[str]) -> None:
    from pipeline.stages.plan import planned_banks
    from pipeline.stages.student import make_bank

    _for_teachers("bank", overrides, make_bank, planned_banks)


def _for_teachers(
    verb: str,
    overrides: list[str],
    one: Callable[..., object],
    planned: Callable[..., list[Planned]],
) -> None:
    """Do `one` thing for each teacher that teacher=all|0|1|... names."""
    from pipeline.config import ConfigError

    which = [o.partition("=")[2] for o in overrides if re.match(r"teacher=", o)] or ["all"]
    rest = [o for o in overrides if not re.match(r"teacher=", o)]

    def numbers(config):
        allowed = ["all", *(str(k) for k in range(len(config.teacher)))]
        if which[-1] not in allowed:
            raise ConfigError([f"teacher={which[-1]}: unknown (allowed: {', '.join(allowed)})"])
        return range(len(config.teacher)) if which[-1] == "all" else [int(which[-1])]

    def work(config, session):
        for number in numbers(config):
            one(config, number, session)

    _in_launch(verb, rest, work, lambda config, store: planned(config, numbers(config), store))


def _distill(overrides: list[str]) -> None:
    from pipeline.stages.matched_budget import standards
    from pipeline.stages.plan import planned_students
    from pipeline.stages.student import distill_student

    _in_launch(
        "distill",
        overrides,
        distill_student,
        lambda config, store: planned_students([*standards(config, overrides), config], store),
    )


def _main(overrides: list[str]) -> None:
    from analysis.selection.bench_runs import RunFilter
    from pipeline.analyze import analyse
    from pipeline.config import compose
    from pipeline.identity import run_key
    from pipeline.stages.plan import planned_students
    from pipeline.stages.student import distill_student, finetune_teacher

    control = compose([*(o for o in overrides if not o.startswith("cfg=")), "cfg=CE"])

    def work(config, session):
        for number in range(len(config.teacher)):
            finetune_teacher(config, number, session)
        distill_student(config, session)
        if run_key("distill", control) != run_key("distill", config):
            distill_student(control, session)
        analyse(session, RunFilter(config.bench.name))

    _in_launch(
        "main",
        overrides,
        work,
        lambda config, store: planned_students([config, control], store),
    )


def _analyze(overrides: list[str]) -> None:
    from pipeline.analyze import analyse_command

    analyse_command(overrides)


def _export(overrides: list[str]) -> None:
    from pipeline.analyze import export_command

    export_command(overrides)


def _compare(arguments: list[str]) -> None:
    from pipeline.compare import compare_command

    compare_command(arguments)


def _explain(arguments: list[str]) -> None:
    from pipeline.compare import explain_command

    explain_command(arguments)


def _evaluate(overrides: list[str]) -> None:
    from pipeline.evaluation.evaluate import evaluate, request

    asked, rest = request(overrides)
    _in_launch("evaluate", rest, partial(evaluate, asked))


def _sync(overrides: list[str]) -> None:
    from pipeline.sync import sync

    _in_launch("sync", overrides, sync)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "main": _main,
    "finetune": _finetune,
    "bank": _bank,
    "distill": _distill,
    "evaluate": _evaluate,
    "analyze": _analyze,
    "export": _export,
    "compare": _compare,
    "explain": _explain,
    "sync": _sync,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
