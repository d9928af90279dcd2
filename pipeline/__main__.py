"""The command line: python -m pipeline VERB key=value …

Exit codes (pipeline/outcome.py): 0 done or reused, 1 failed, 2 an error of the user, 75 interrupted
after a checkpoint (run the same command to resume).
"""

from __future__ import annotations

import logging
import sys

from analysis.suggest import nearest
from pipeline.cli import help, version
from pipeline.cli.arguments import (
    CANCEL,
    HELP,
    HELP_FLAGS,
    LAUNCHER,
    STAGES,
    VERSION,
    is_multirun,
    overrides_of,
    wants_help,
    without_cfg,
    without_config_dir,
    without_dry_run,
)
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
    words, shows = without_cfg(without_config_dir(without_dry_run(arguments)))
    verb, *rest = words or [HELP]
    if verb == VERSION:
        print(f"{version.NAME} {version.version()}")
    elif verb in (HELP, *HELP_FLAGS):
        print(help.page())
    elif verb not in VERBS:
        print(f"no verb {verb!r}{nearest(verb, list(VERBS), show_all=True)}", file=sys.stderr)
        return USER_ERROR.exit_code
    elif wants_help(rest):
        print(help.of_verb(verb))
    elif shows:
        return exit_code_of(lambda: _show(verb, rest))
    elif is_multirun(rest) and verb != "distill":
        print(f"{verb}: only distill runs several (-m, {LAUNCHER}=…)", file=sys.stderr)
        return USER_ERROR.exit_code
    else:
        return exit_code_of(lambda: _run(verb, rest))
    return (DONE if arguments else USER_ERROR).exit_code


def _show(verb: str, arguments: list[str]) -> None:
    """Print the configuration of a verb that runs stages, and run nothing."""
    if verb not in STAGES:
        raise imported("pipeline.config:ConfigError")([f"--cfg: {verb} composes no run"])
    given = overrides_of(verb, arguments)
    if verb in ("finetune", "bank"):
        _, given = imported("pipeline.cli.environment:listed_teachers")(given)
    print(imported("pipeline.config.sources:as_yaml")(given))


def _run(verb: str, arguments: list[str]) -> None:
    if is_multirun(arguments):
        multirun = imported("pipeline.launch.multirun:multirun")
        multirun(overrides_of(verb, arguments), cancel=CANCEL in arguments)
    else:
        imported(VERBS[verb])(overrides_of(verb, arguments))


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
