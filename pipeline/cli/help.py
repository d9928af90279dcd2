"""Texts of `--help` and `--version`. What conf/ offers is listed from its files."""

from __future__ import annotations

import re
import textwrap

from pipeline.cli.arguments import LAUNCHER
from pipeline.config.groups import described, options_of

WIDTH = 100

_VERBS = """\
python -m pipeline VERB key=value ...

verbs (each has its own page: python -m pipeline VERB --help)
  main       fine-tune the teachers, distil cfg and the controls CE and KD, analyse
  finetune   the teachers of a bench             teacher=all|0|NAME,NAME
  bank       their view banks (teachers first)   teacher=all|0|NAME,NAME
  distill    a student (missing teachers first)  cfg=L3 bench=digits seed=0
  show       the configuration of distill, with the source of every value; of two, what differs
  evaluate   a finished network                  run=KEY|MLFLOW_RUN_ID|FILE split=val|test|train
  analyze    report, tables and figures          what=ladder|beta|... experiment=NAME
  export     what a report reads, as one file    out=NAME.db.xz
  compare    runs next to each other             RUN RUN ... (an id, a key, a name, a rung)
  explain    where two runs part                 A B
  sync       send to the tracking store what has not reached it
"""

_OPTIONS = """\
options, the most used; every key of conf/ and its dataclasses works (docs/configuration.md)
{choices}
  seed=0                             initial weights, order, crops, mixed images
  data.train_limit=8000              fewer images
  method.ib_beta=1e-3                any number of the method
  teacher.0.ckpt=PATH                your own teacher, used as it is
  runtime.store=FOLDER               checkpoints, weights and view banks (default ./store)
  runtime.experiment=NAME            where runs are tracked (default asib)
  runtime.device=cuda:1              default: a GPU where there is one
"""

_CHOICES = {
    "cfg": "rungs of the ladder (default L3); each adds one factor",
    "method": "methods of the literature, in place of a rung, and ASIB itself",
    "bench": "benches (default digits): data, teachers, student, budget",
    "budget": "budgets: how long the student and the fusion are trained",
    "experiment": "experiments: a bench, budget, method and rung by one name",
}

_SEVERAL = """\
several: python -m pipeline distill -m cfg=L0,L1 seed=0,1,2 hydra/launcher=NAME
  hydra/launcher=NAME                {launchers}; see conf/hydra/launcher/
  hydra.launcher.jobs_parallel=2     submitit_local: how many at once (default: one per GPU)
  hydra.launcher.partition=NAME      submitit_slurm: the partition
  --cancel                           end what such a command has submitted
studies: python -m sweeps --help
"""

_SHORTCUTS = """\
--dry-run shows the plan; so does DRY_RUN=1 in the environment, where TEACHER_PAIR=a,b STUDENT=
METHOD= SEED= set options; --config-dir FOLDER (or ASIB_CONF) adds files of your own to conf/;
--cfg prints the configuration; --hydra-help lists Hydra's other flags
"""

_ENDS = """\
tracking goes to MLFLOW_TRACKING_URI (default sqlite:///mlflow.db); look with: mlflow ui
exit codes: 0 done or reused, 1 failed, 2 error in the options, 75 interrupted after a checkpoint
"""

_FILTERS = """\
  experiment=NAME        whose runs: asib (default); those of a study are in asib/STUDY
  bench=NAME             of one bench
  tag.NAME=VALUE         with this tag
  since=DATE until=DATE  started on these days, both included, UTC: since=2026-01-31
"""

_OF_VERB = {
    "main": """\
main key=value ...

Fine-tunes the teachers of a bench, distils cfg (L3) and the controls CE and KD, and analyses.
""",
    "finetune": """\
finetune key=value ...

Trains the teachers of a bench, or reuses them.
  teacher=all|0|1|...    which (default all)
  teacher=NAME,NAME      these, in the place of the bench's: teacher=convnext_s,resnet152
""",
    "bank": """\
bank key=value ...

Stores the teacher outputs for every view of every image; trains missing teachers first.
  teacher=all|0|1|...    whose (default all)
""",
    "distill": """\
distill key=value ...

Trains one student; missing teachers and view banks are made first.
""",
    "show": """\
show key=value ...

Prints the configuration of distill; runs nothing. Every value has its source (a file, or the
command line), and whether it is part of the key of the run. `main`, `finetune`, `bank`, `distill`
and studies print theirs with --cfg.
  cfg=L2,L3              of several, what differs: option by option, and whether they are one
                         experiment
  --package NAME         this part only, such as optim or method.tau
  --info [WHAT]          what Hydra composes it from: defaults, defaults-tree, searchpath, plugins
""",
    "evaluate": """\
evaluate run=RUN key=value ...

Accuracy, calibration and confusion of a finished network, logged with its run.
  run=KEY|NAME|MLFLOW_RUN_ID|FILE   a key can be cut to its first 4 digits or more; a weights file
                                    takes student.model=NAME and the data set of bench=
  split=val|test|train         default val; each reading of test is counted
  bench= data= data.root= ...  other data with the same classes, channels and image size
A run is evaluated in its own configuration, as a child of its run and in its experiment (unless
another is chosen); only the data options above and runtime.* can be changed.
""",
    "analyze": f"""\
analyze key=value ...

Report, tables and figures from the tracking store alone: printed, written to
report/EXPERIMENT/WHAT-FILTERS/ and logged as a run.
  what=ladder            each rung against each control (default); or methods, beta, cccp,
                         freezing, information_plane, teacher_adaptation, room, overlap, health,
                         labels, study;
                         comprehensive is all of them but study
{_FILTERS}\
  primary=RUNG           whose claim against the controls was fixed beforehand: L4 (default)
  margin=POINTS          within which two results count as equivalent (default 0.5)
  spread=sd|interval     what is printed next to a mean in tables.tex (default interval)
  out=FOLDER             where the files go
  store=FILE             read an exported store; nothing is tracked
""",
    "export": f"""\
export out=NAME.db.xz key=value ...

What a report reads (params, metrics, no weights), as one file to give away.
  out=NAME.db.xz         the file; python -m pipeline analyze store=NAME.db.xz reads it
{_FILTERS}""",
    "compare": """\
compare RUN RUN ... key=value ...

Differences in configuration, results and cost.
  RUN                    an id, a key, a name, or a rung (all its seeds)
  experiment=NAME        where: asib (default); runs of a study are in asib/STUDY
  bench=NAME             of one bench
  store=FILE             an exported store
""",
    "explain": """\
explain A B key=value ...

The first epoch at which two runs part, and the difference in their identity that explains it.
  A, B                   an id, a key, a name, or a rung
  experiment=NAME        where: asib (default); runs of a study are in asib/STUDY
  bench=NAME             of one bench
  store=FILE             an exported store
""",
    "sync": """\
sync key=value ...

Compares the tracking store with the local store, sends what has not reached it, and repairs what is
wrong there: values, statuses, tags, and files by name and size.
  runtime.store=FOLDER   default ./store
  contents=true          files by their content, too: an artifact store that is not a folder of this
                         machine is downloaded
""",
}
_TRAINING = ("main", "finetune", "bank", "distill", "show")


def page() -> str:
    """The page of the command line."""
    choices = "\n".join(map(_choice, _CHOICES))
    return "\n".join([_VERBS, _OPTIONS.format(choices=choices), _several(), _SHORTCUTS + _ENDS])


def of_verb(verb: str) -> str:
    """The page of one verb."""
    trains = verb in _TRAINING
    parts = [f"python -m pipeline {_OF_VERB[verb]}"]
    if trains:
        tables = "\n".join(f"  {g}=NAME: {text}\n{table(g)}" for g, text in _CHOICES.items())
        parts.append(_OPTIONS.format(choices=tables))
    parts += [_several()] * (verb == "distill")
    return "\n".join([*parts, _SHORTCUTS * trains + _ENDS])


def table(group: str, indent: int = 4) -> str:
    """The names of a group of conf/, each with the first sentence of its comment."""
    width = max(map(len, options_of(group)))
    return "\n".join(
        _wrapped(f"{name:{width}}  {_sentence(text)}", indent, indent + width + 2)
        for name, text in described(group).items()
    )


def _choice(group: str) -> str:
    """`bench=NAME`, its meaning and its names."""
    names = " ".join(options_of(group))
    return _wrapped(f"{f'{group}=NAME':33}  {_CHOICES[group]}: {names}", 2, 37)


def _several() -> str:
    return _SEVERAL.format(launchers=", ".join(options_of(LAUNCHER)))


def _sentence(text: str) -> str:
    return re.split(r"(?<=[.?]) (?=[A-Z])", text)[0].removesuffix(".")


def _wrapped(text: str, first: int, others: int) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * others,
        break_long_words=False,
        break_on_hyphens=False,
    )
