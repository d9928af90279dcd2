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

from pipeline.cli import help
from pipeline.cli.console import say
from pipeline.outcome import DONE, USER_ERROR, report

if TYPE_CHECKING:
    from pipeline.stages.plan import Planned

OK, MISTAKE = DONE.exit_code, USER_ERROR.exit_code
STAGES = ("main", "finetune", "bank", "distill")  # verbs that the environment's shortcuts are for
DRY_RUN_FLAG = "--dry-run"
EMPTY = ("cfg=", "bench=", "seed=", "teacher=")  # parameters of MLproject that were not given


def main(arguments: list[str]) -> int:
    """Run one verb; give the exit code."""
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help.PAGE)
        return OK if arguments else MISTAKE
    verb, *rest = without_dry_run(arguments) or [""]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"no verb {verb!r}{hint} (verbs: {', '.join(VERBS)})", file=sys.stderr)
        return MISTAKE
    if "-h" in rest or "--help" in rest:
        print(help.of_verb(verb))
        return OK
    from pipeline.launch.multirun import CANCEL, FLAGS, is_multirun, multirun

    if is_multirun(rest):
        if verb != "distill":
            print(f"{verb}: only distill runs several (-m, hydra/launcher=…)", file=sys.stderr)
            return MISTAKE
        plain = as_overrides([text for text in rest if text not in (*FLAGS, CANCEL)])
        return guarded(lambda: multirun(_asked_for(verb, plain), cancel=CANCEL in rest))
    return guarded(lambda: VERBS[verb](_asked_for(verb, as_overrides(rest))))


def without_dry_run(arguments: list[str]) -> list[str]:
    """The other words; `--dry-run` among them is DRY_RUN=1 for this process."""
    if DRY_RUN_FLAG in arguments:
        os.environ["DRY_RUN"] = "1"
    return [text for text in arguments if text != DRY_RUN_FLAG]


def as_overrides(arguments: list[str]) -> list[str]:
    """MLflow hands undeclared -P key=value on as `--key value`: make them overrides."""
    found, rest = [], list(arguments)
    while rest:
        text = rest.pop(0)
        if text.startswith("--") and "=" not in text and rest:
            text = f"{text}={rest.pop(0)}"
        found.append(text.removeprefix("--"))
    return found


def guarded(run: Callable[[], None]) -> int:
    """Run a verb; print what ended it and return the exit code."""
    try:
        run()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - reported, by its outcome
        return report(error)
    return OK


def _asked_for(verb: str, overrides: list[str]) -> list[str]:
    """What was typed, with the environment's shortcuts where a stage is asked for; they are told.
    MLproject's parameters that were not given arrive empty."""
    from pipeline.cli.environment import dry_run, with_shortcuts
    from pipeline.config import ConfigError

    typed = [text for text in overrides if text not in EMPTY]
    if verb not in STAGES and dry_run(os.environ):
        plans = f"{', '.join(STAGES)} and of studies"
        raise ConfigError([f"DRY_RUN shows the plan of {plans}, not of {verb}: leave it out"])
    found = with_shortcuts(typed, os.environ) if verb in STAGES else typed
    if len(found) > len(typed):
        say(f"from the environment: {' '.join(found[: len(found) - len(typed)])}")
    return found


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
