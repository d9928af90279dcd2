"""The command line: python -m pipeline VERB key=value …

Exit codes (pipeline/outcome.py): 0 done or reused, 1 failed, 2 an error of the user, 75 interrupted
after a checkpoint (run the same command to resume).
"""

from __future__ import annotations

import logging
import sys

from analysis.suggest import nearest
from pipeline.cli import completion, help, version
from pipeline.cli.arguments import (
    CANCEL,
    COMPOSE,
    HELP,
    HELP_FLAGS,
    HYDRA_HELP,
    LAUNCHER,
    SHOW,
    VERSION,
    is_multirun,
    overrides_of,
    plain_switches,
    strange_words,
    wants_help,
    without_config_dir,
    without_dry_run,
)
from pipeline.cli.hydra_flags import PAGE, Shown, taken
from pipeline.cli.redaction import hide_credentials
from pipeline.outcome import (
    DONE,
    USER_ERROR,
    end_process,
    exit_code_of,
    imported,
    print_anywhere,
)

VERBS = {  # imported when they run: most need torch, --help does not
    "main": "pipeline.train:main_command",
    "finetune": "pipeline.train:finetune_command",
    "bank": "pipeline.train:bank_command",
    "distill": "pipeline.train:distill_command",
    SHOW: "pipeline.show:show",
    "evaluate": "pipeline.evaluation.evaluate:evaluate_command",
    "analyze": "pipeline.analyze:analyse_command",
    "export": "pipeline.analyze:export_command",
    "compare": "pipeline.compare:compare_command",
    "explain": "pipeline.compare:explain_command",
    "sync": "pipeline.sync:sync_command",
}


def main(arguments: list[str]) -> int:
    """Run one verb; return the exit code."""
    hide_credentials()
    print_anywhere()
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    arguments = without_config_dir(without_dry_run(plain_switches(arguments)))
    shown, words, errors = taken(arguments)
    verb, *rest = words or [HELP]
    if (wanted := shown.completion) is not None:
        return exit_code_of(lambda: completion.command(wanted, completion.PIPELINE, list(VERBS)))
    if VERSION in words:
        print(f"{version.NAME} {version.version()}")
    elif HYDRA_HELP in words:
        print(PAGE)
    elif verb in (HELP, *HELP_FLAGS):
        print(help.page())
    elif verb not in VERBS:
        print(f"no verb {verb!r}{nearest(verb, list(VERBS), show_all=True)}", file=sys.stderr)
        return USER_ERROR.exit_code
    elif wants_help(rest):
        print(help.of_verb(verb))
    elif shown or verb == SHOW or errors:
        return exit_code_of(lambda: _show(verb, rest, shown, errors))
    elif is_multirun(rest) and verb != "distill":
        print(f"{verb}: only distill runs several (-m, {LAUNCHER}=…)", file=sys.stderr)
        return USER_ERROR.exit_code
    else:
        return exit_code_of(lambda: _run(verb, rest))
    return (DONE if arguments else USER_ERROR).exit_code


def _show(verb: str, arguments: list[str], shown: Shown, errors: list[str]) -> None:
    """Print the configuration of a verb that runs stages, and run nothing.

    Raises:
        ConfigError: `errors` of flags, or those of the configuration.
    """
    if verb not in COMPOSE and shown:
        errors = [*errors, f"--cfg, --info: {verb} composes no run"]
    if errors := [*errors, *strange_words(arguments)]:
        raise imported("pipeline.config:ConfigError")(errors)
    imported(VERBS[SHOW])(verb, overrides_of(verb, arguments), shown)


def _run(verb: str, arguments: list[str]) -> None:
    if is_multirun(arguments):
        multirun = imported("pipeline.launch.multirun:multirun")
        multirun(overrides_of(verb, arguments), cancel=CANCEL in arguments)
    else:
        imported(VERBS[verb])(overrides_of(verb, arguments))


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
