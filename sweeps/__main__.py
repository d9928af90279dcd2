"""The command line of studies: python -m sweeps STUDY key=value …

Exit codes are those of the pipeline: 0 done, 1 failed, 2 error in the options, 75 interrupted.
"""

from __future__ import annotations

import sys

from pipeline.__main__ import main as pipeline
from pipeline.cli import completion, help, version
from pipeline.cli.arguments import (
    CANCEL,
    HELP,
    HELP_FLAGS,
    HYDRA_HELP,
    LAUNCHER,
    VERSION,
    as_overrides,
    lasting,
    plain_switches,
    strange_words,
    wants_help,
    without_config_dir,
    without_dry_run,
)
from pipeline.cli.hydra_flags import PAGE, taken
from pipeline.cli.redaction import hide_credentials
from pipeline.config.groups import options_of, unknown
from pipeline.outcome import (
    DONE,
    USER_ERROR,
    end_process,
    exit_code_of,
    imported,
    print_anywhere,
)

RUN_STUDY = "sweeps.run_study"  # imported when it runs: it needs torch, --help does not
WORK = "work"
SWEEP = "sweep"
EMPTY = ("study=", "trials=", "workers=")  # parameters of MLproject, not given

_PAGE = """\
python -m sweeps STUDY key=value ...

studies (conf/study/STUDY.yaml)
{studies}

options
  trials=30                 how many in all; a larger number continues, counting over all workers
  seeds=0,1,2               a trial is the mean of its seeds
  workers=4                 processes that work on the study, each on a trial with all its seeds
  hydra/launcher=NAME       where: {launchers}; hydra.launcher.partition=NAME
                            and every other option of conf/hydra/launcher/NAME.yaml
  sampler=grid|tpe|gp|random   pruner=none|hyperband|median
  cfg=L2 bench=digits ...   every option of `python -m pipeline distill`, for all trials
  --dry-run                 print the plan only; DRY_RUN=1 in the environment does the same
  --cancel                  end what was submitted (with the launcher that it was submitted by)

The objective is validation accuracy, never test. Trials are kept in a journal file below
runtime.store, or in the database that ASIB_STUDY_STORAGE names; a trial whose worker died is
resumed by another. python -m sweeps work STUDY ... is one worker in this process, for sites that
forbid launchers.
Exit codes: 0 done, 1 failed, 2 error in the options, 75 interrupted (run again to resume).
"""


def main(arguments: list[str]) -> int:
    """Run one study, or one worker of it; return the exit code."""
    hide_credentials()
    print_anywhere()
    if not arguments or arguments[0] in (HELP, *HELP_FLAGS):
        print(page())
        return (DONE if arguments else USER_ERROR).exit_code
    if HYDRA_HELP in arguments:
        print(PAGE)
        return DONE.exit_code
    if VERSION in arguments:
        print(f"{version.NAME} {version.version()}")
        return DONE.exit_code
    arguments = without_config_dir(without_dry_run(plain_switches(arguments)))
    shown, arguments, errors = taken(arguments)
    if (wanted := shown.completion) is not None:
        return exit_code_of(lambda: completion.command(wanted, completion.SWEEPS))
    works, rest = arguments[:1] == [WORK], arguments[1:] if arguments[:1] == [WORK] else arguments
    plain = as_overrides([text for text in rest if text not in HELP_FLAGS])
    names = [text.removeprefix("study=") for text in plain if not _sets(text) or _names(text)]
    given = [text for text in plain if _sets(text) and not _names(text) and text not in EMPTY]
    if wants_help(rest):
        return exit_code_of(lambda: _help(names))
    if strange := [*errors, *strange_words(rest)]:
        return exit_code_of(lambda: _refuse(strange))
    if len(names) != 1:
        print(f"one study is needed, not {names}: python -m sweeps --help", file=sys.stderr)
        return USER_ERROR.exit_code
    if shown:
        show = f"{RUN_STUDY}:show_study"
        return exit_code_of(lambda: imported(show)(names[0], lasting(given), shown))
    if works:
        return exit_code_of(lambda: imported(f"{RUN_STUDY}:run_worker")(names[0], lasting(given)))
    cancel = CANCEL in rest
    return exit_code_of(
        lambda: imported(f"{RUN_STUDY}:run_study")(names[0], lasting(given), cancel=cancel)
    )


def page() -> str:
    """The text of --help, with the studies of conf/study."""
    return _PAGE.format(
        studies=help.table("study", indent=2), launchers=", ".join(options_of(LAUNCHER))
    )


def _help(names: list[str]) -> None:
    """The text of --help.

    Raises:
        ConfigError: a study is named that does not exist.
    """
    if wrong := [text for name in names if (text := unknown("study", name))]:
        raise imported("pipeline.config:ConfigError")(wrong)
    print(page())


def _refuse(errors: list[str]) -> None:
    """
    Raises:
        ConfigError: always.
    """
    from pipeline.config import ConfigError

    raise ConfigError(errors)


def _sets(text: str) -> bool:
    """Whether it is key=value, or ~key."""
    return "=" in text or text.startswith("~")


def _names(text: str) -> bool:
    return text.startswith("study=")


def asib() -> None:
    """The command `asib`: `asib sweep STUDY …` is `python -m sweeps STUDY …`, and `asib VERB …` is
    `python -m pipeline VERB …`."""
    verb, *rest = sys.argv[1:] or [HELP]
    if verb == SWEEP:
        end_process(main(rest))
    end_process(pipeline(sys.argv[1:]))


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
