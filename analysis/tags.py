"""Every tag of a run in the tracking store. The metrics are in `trainers.metrics`."""

DEFAULT_EXPERIMENT = "asib"

# Tags of a stage run. Parent: the launch run, by MLflow's own tag.
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # a run's description, Markdown
STAGE = "stage"  # finetune | distill | analyze | evaluate | launch
RUNG = "rung"  # CE KD L0 … for ASIB's ladder, the method's name for a baseline
BENCH = "bench"
METHOD = "method"
TEACHERS = "teachers"
TEACHER_KEYS = "teacher_keys"  # run keys of the teachers, with commas; empty: no teacher
OWN_TEACHER = "own_teacher"  # run key of the student that taught it, under self-training
VERSION = "numerics_version"  # version of the stage's numerics: other numbers have another one
CLAIM = "claim"  # of a study: its primary claim as it was declared at launch, JSON
STUDENT = "student"
SEED = "seed"
RUN_KEY = "run_key"
RECIPE = "recipe"  # key of everything but the seed: runs of one recipe are repetitions
MATCHED_TO = "matched_to"  # rung whose time a CE run was given
VARIANT = "variant"  # how a run differs from its rung's default, as overrides; empty: not at all
SETTING = "setting"  # key of data, student and budget: runs of one setting may be compared
OVERLAP = "overlap"  # percent of the classes that both teachers were trained on
STUDY = "study"
TRIAL = "trial"
LAUNCHER = "launcher"  # options of the launcher that ran it as a job, as they were given
DEVICE = "device"  # "cpu", or the GPU's name
TORCH = "torch"  # version of torch
GIT = "git"  # revision, with "-dirty" where the tree was changed
REUSED = "reused"  # "true" on a run that was replayed from the local store
ERROR = "error"  # last line of the traceback of a FAILED run
HEALTH = "health"  # the warnings that a run gave, with commas; no tag where there was none
INTERRUPTED = "interrupted"  # "true" on a KILLED run that can be resumed
FALLBACK = "precision_fallback"  # why mixed precision was switched off in the middle of a run

# Tags of an evaluation run.
SPLIT = "split"  # train | val | test
EVALUATED = "evaluated"  # key of the evaluated run, or the first digits of a file's sha256
