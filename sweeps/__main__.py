"""The command line of studies: python -m sweeps STUDY key=value …

Exit codes are those of the pipeline: 0 done, 1 failed, 2 a mistake, 75 stopped: type it again.
"""

from __future__ import annotations

import sys

from pipeline.__main__ import MISTAKE, OK, as_overrides, guarded, without_dry_run
from pipeline.launch.multirun import CANCEL

WORK = "work"
HELP_FLAGS = ("-h", "--help")
EMPTY = ("study=", "trials=", "workers=", "launcher=")  # parameters of MLproject, not given

HELP = """\
python -m sweeps STUDY key=value ...

studies (conf/study/STUDY.yaml)
  beta        log-uniform beta by TPE, beta 0 and the rung's own first
  beta_grid   the replicated log grid of a sensitivity figure
  ladder      every rung            methods   ASIB beside other methods
  switches    what no rung turns on overlap   teachers that know different things
  joint       beta, temperature, KD weight and learning rate together, by a Gaussian process

options
  trials=30                 how many in all; again with more goes on, counting over all workers
  seeds=0,1,2               a trial is the mean of its seeds
  workers=4                 processes that work on the study, each on a trial with all its seeds
  launcher=local|slurm      where; hydra.launcher.partition=NAME and all of conf/hydra/launcher/
  sampler=grid|tpe|gp|random   pruner=none|hyperband|median
  cfg=L2 bench=digits ...   every option of `python -m pipeline distill`, for all trials
  --dry-run                 show the plan alone; DRY_RUN=1 in the environment does the same
  --cancel                  end what was submitted (with the launcher that it was submitted by)

The goal is validation accuracy, never test. Trials meet in a journal file below runtime.store, or
in the database that ASIB_STUDY_STORAGE names; a trial whose worker died is taken up again.
python -m sweeps work STUDY ... is one worker in this process, for sites that forbid launchers.
Exit codes: 0 done, 1 failed, 2 mistake, 75 stopped: type it again.
"""


def main(arguments: list[str]) -> int:
    """Run one study, or one worker of it; give the exit code."""
    if not arguments or arguments[0] in (*HELP_FLAGS, "help"):
        print(HELP)
        return OK if arguments else MISTAKE
    arguments = without_dry_run(arguments)
    works, rest = arguments[:1] == [WORK], arguments[1:] if arguments[:1] == [WORK] else arguments
    plain = as_overrides([text for text in rest if text not in (CANCEL, *HELP_FLAGS)])
    names = [text.removeprefix("study=") for text in plain if "=" not in text or _names(text)]
    overrides = [text for text in plain if "=" in text and not _names(text) and text not in EMPTY]
    if set(rest) & set(HELP_FLAGS):
        return guarded(lambda: _help(names))
    if len(names) != 1:
        print(f"one study is needed, not {names}: python -m sweeps --help", file=sys.stderr)
        return MISTAKE
    from sweeps.run_study import run_study, run_worker

    if works:
        return guarded(lambda: run_worker(names[0], overrides))
    return guarded(lambda: run_study(names[0], overrides, cancel=CANCEL in rest))


def _help(names: list[str]) -> None:
    """What can be typed, unless a study is named that does not exist."""
    from sweeps.study_file import read_study

    for name in names:
        read_study(name)
    print(HELP)


def _names(text: str) -> bool:
    return text.startswith("study=")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
