"""What `--help` says: the page of the command line, and that of each verb."""

_VERBS = """\
python -m pipeline VERB key=value ...

verbs (each has its own page: python -m pipeline VERB --help)
  main       fine-tune the teachers, distil cfg and the control CE, analyse
  finetune   the teachers of a bench           teacher=all|0|1|...
  bank       their view banks (teachers first) teacher=all|0|1|...
  distill    a student (what is absent first)  cfg=L3 bench=digits seed=0
  evaluate   a finished network                run=KEY|MLFLOW_RUN_ID|FILE split=val|test|train
  analyze    report, tables and figures        what=ladder|beta|... experiment=NAME
  export     what a report reads, as one file  out=NAME.db.xz
  compare    runs beside each other            RUN RUN ... (an id, a key, a name, a rung)
  explain    where two runs part               A B
  sync       send what has not reached the tracking store
"""

_OPTIONS = """\
options, the most used; every key of conf/ and its dataclass works (docs/configuration.md)
  cfg=CE|KD|L0|L1|L2|L3|L4           rung of the ladder: each adds one factor; also
      side_cccp_ppf side_asib_cccp   side branches; L2_null L3_null KD_null placebos; CE_matched
  bench=digits|fashion_mnist         data, teachers, student, budget
  seed=0                             first weights, order, crops, mixes
  budget=short data.train_limit=8000 less training, fewer images
  method.ib_beta=1e-3                any number of the method
  teacher.0.ckpt=PATH                your own teacher, used as it is
  runtime.store=FOLDER               commits, weights and view banks (default ./store)
  runtime.experiment=NAME            where runs are tracked (default asib)
  runtime.device=cuda:1              default: a GPU where there is one
"""

_SEVERAL = """\
several: python -m pipeline distill -m cfg=L0,L1 seed=0,1,2 hydra/launcher=local|slurm
  hydra.launcher.jobs_parallel=2     local: how many at once (default: one a GPU)
  hydra.launcher.partition=NAME      slurm: see conf/hydra/launcher/slurm.yaml for all
  --cancel                           end what such a command has submitted
studies: python -m sweeps --help
"""

_SHORTCUTS = """\
--dry-run shows the plan; so does DRY_RUN=1 in the environment, where TEACHER_PAIR=a,b STUDENT=
METHOD= SEED= stand for options
"""

_ENDS = """\
tracking goes to MLFLOW_TRACKING_URI (default sqlite:///mlflow.db); look with: mlflow ui
exit codes: 0 done or reused, 1 failed, 2 mistake in the options, 75 stopped after a commit
"""

PAGE = "\n".join([_VERBS, _OPTIONS, _SEVERAL, _SHORTCUTS + _ENDS])

_FILTERS = """\
  experiment=NAME        whose runs: asib (default); those of a study are in asib/STUDY
  bench=NAME             of one bench
  tag.NAME=VALUE         with this tag
  since=DATE until=DATE  begun on these days, both included, UTC: since=2026-01-31
"""

_OF_VERB = {
    "main": """\
main key=value ...

Fine-tunes the teachers of a bench, distils cfg (L3) and the control CE, and analyses.
""",
    "finetune": """\
finetune key=value ...

Trains the teachers of a bench, or reuses them.
  teacher=all|0|1|...    which (default all)
""",
    "bank": """\
bank key=value ...

Stores what the teachers say of every view of every image; trains them first, where absent.
  teacher=all|0|1|...    whose (default all)
""",
    "distill": """\
distill key=value ...

Trains one student; teachers and view banks that are absent are made first.
""",
    "evaluate": """\
evaluate run=RUN key=value ...

Accuracy, calibration and confusion of a finished network, logged with its run.
  run=KEY|NAME|MLFLOW_RUN_ID|FILE   a key can be cut to its first 4 digits or more; a weights file
                                    takes student.model=NAME and the data set of bench=
  split=val|test|train         val where not given; each reading of test is counted
  bench= data= data.root= ...  other data with the same classes, channels and image size
A run is evaluated in its own configuration, as a child of its run and in its experiment (unless
another is chosen); of options only the data above and runtime.* can be given beside.
""",
    "analyze": f"""\
analyze key=value ...

Report, tables and figures from the tracking store alone: printed, written to
report/EXPERIMENT/WHAT-FILTERS/ and logged as a run.
  what=ladder            each rung against the best control (default); or methods, beta, cccp,
                         freezing, information_plane, teacher_adaptation, overlap, health;
                         comprehensive is all of them
{_FILTERS}\
  primary=RUNG           whose claim against the best control was fixed beforehand: L4 (default);
                         all others are corrected after Holm
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

What differs in configuration, results and cost.
  RUN                    an id, a key, a name, or a rung (all its seeds)
  experiment=NAME        where: asib (default); runs of a study are in asib/STUDY
  bench=NAME             of one bench
  store=FILE             an exported store
""",
    "explain": """\
explain A B key=value ...

The first epoch at which two runs part, and what in their identity says why.
  A, B                   an id, a key, a name, or a rung
  experiment=NAME        where: asib (default); runs of a study are in asib/STUDY
  bench=NAME             of one bench
  store=FILE             an exported store
""",
    "sync": """\
sync key=value ...

Sends what has not reached the tracking store, from the local store.
  runtime.store=FOLDER   default ./store
""",
}
_TRAINING = ("main", "finetune", "bank", "distill")


def of_verb(verb: str) -> str:
    """The page of one verb."""
    trains = verb in _TRAINING
    parts = [f"python -m pipeline {_OF_VERB[verb]}"]
    parts += [_OPTIONS] * trains + [_SEVERAL] * (verb == "distill")
    return "\n".join([*parts, _SHORTCUTS * trains + _ENDS])
