"""Options of launchers.

A launcher is chosen with `hydra/launcher=NAME`; its options are `hydra.launcher.KEY=VALUE`. Hydra
composes conf/hydra/launcher/NAME.yaml, or a file of the user's own folder, whose `_target_` is one
of the classes in hydra_plugins/asib_launcher.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, cast

from hydra.errors import HydraException

from analysis.suggest import nearest
from pipeline.cli.arguments import LAUNCHER
from pipeline.config.errors import ConfigError
from pipeline.config.fields import build_dataclass
from pipeline.config.groups import options_of
from pipeline.config.hydra_files import launcher_values
from pipeline.config.overrides import parse_override
from trainers.options import option

CHOICE, PREFIX = LAUNCHER, "hydra.launcher."


@dataclass
class LocalConfig:
    """Jobs as processes of this machine."""

    jobs_parallel: int | None = option(None, "how many run at once (null: one per GPU)", low=1)
    cpus_per_task: int | None = option(
        None, "threads of a job (null: torch's choice, shared by the jobs that run at once)", low=1
    )
    gpus_per_node: int | None = option(None, "0: jobs without a GPU", low=0, high=1)
    timeout_min: int | None = option(None, "minutes after which a job is stopped", low=1)
    submitit_folder: str | None = option(None, "folder of the logs (null: in the store)", path=True)
    stderr_to_stdout: bool = option(True, "one log; false: standard error in a file of its own")
    nodes: int | None = option(1, "this machine", low=1, high=1)
    tasks_per_node: int | None = option(1, "a job is one process", low=1, high=1)
    mem_gb: float | None = option(None, "null: memory is not limited on this machine")
    name: str | None = option(None, "of no effect on this machine")


@dataclass
class SlurmConfig:
    """Jobs by Slurm. It has every option of hydra-submitit-launcher, and more."""

    name: str | None = option("asib", "name of the jobs in Slurm")
    partition: str | None = option(None, "partition (null: the site's default)")
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    constraint: str | None = option(None, "features that a node must have")
    reservation: str | None = option(None, "reservation that the jobs run in")
    nodelist: str | None = option(None, "nodes that a job must have")
    exclude: str | None = option(None, "nodes that a job must not have")
    comment: str | None = option(None, "comment of the jobs in Slurm")
    runs_per_job: int = option(
        1, "runs, or workers of a study, that share a job and its GPU", low=1
    )
    gres: str | None = option(
        "auto",
        "generic resources of a job, such as gpu:1; auto: gpu:1 where the partition has GPUs",
    )
    gpus_per_node: str | None = option(None, "GPUs of a job, such as 1 or a100:1")
    gpus_per_task: str | None = option(None, "the same, as an option of tasks: a job has one")
    cpus_per_task: int | None = option(1, "CPU cores of a run", low=1)
    cpus_per_gpu: int | None = option(None, "CPU cores for each GPU", low=1)
    mem_gb: float | None = option(3.5, "memory of a run in GB", low=0.1)
    mem_per_cpu: str | None = option(None, "memory for each core, such as 4G")
    mem_per_gpu: str | None = option(None, "memory for each GPU, such as 16G")
    nodes: int | None = option(1, "nodes of a job", low=1, high=1)
    tasks_per_node: int | None = option(1, "what Slurm starts of a job, by srun", low=1, high=1)
    timeout_min: int | None = option(240, "wall time in minutes (null: the partition's)", low=1)
    array_parallelism: int | None = option(16, "jobs that run at once (null: all)", low=1)
    setup: list[str] | None = option([], "shell lines before the job")
    srun_args: list[str] | None = option([], "more arguments of srun")
    additional_parameters: dict[str, Any] | None = option({}, "any other option of sbatch")
    submitit_folder: str | None = option(
        None, "folder of logs and of what jobs run (null: in the store)", path=True
    )
    stderr_to_stdout: bool = option(True, "one log; false: standard error in a file of its own")
    signal_delay_s: int = option(120, "seconds between the signal and the kill", low=1)
    requeue: bool = option(True, "preempted and timed-out jobs are requeued")
    max_num_timeout: int = option(100, "how often a job is requeued at most", low=0)
    poll_s: float = option(5.0, "seconds between two queries of the queue", low=0.1)
    away_min: float = option(
        30.0, "minutes without an answer of Slurm after which jobs are left alone", low=0
    )


# Options that exclude each other, those of sbatch that have no field here included.
_EXCLUSIVE = (
    ("mem_gb", "mem_per_cpu", "mem_per_gpu", "mem"),
    ("cpus_per_task", "cpus_per_gpu"),
    ("gres", "gpus_per_node", "gpus_per_task", "gpus"),
)
# Options of sbatch that the launcher sets: another value would lose jobs or their logs.
_OURS = {
    "array",
    "output",
    "error",
    "open-mode",
    "dependency",
    "kill-on-invalid-dep",
    "parsable",
    "signal",
    "requeue",
    "no-requeue",
    "wrap",
    "wait",
    "test-only",
    "nodes",
    "ntasks",
}

LOCAL, SLURM = "submitit_local", "submitit_slurm"  # the names of hydra-submitit-launcher
CONFIGS: dict[str, type] = {LOCAL: LocalConfig, SLURM: SlurmConfig}
_SHORT = {"local": LOCAL, "slurm": SLURM}
_PLUGINS = "hydra_plugins.asib_launcher"
TARGETS = {f"{_PLUGINS}.LocalLauncher": LOCAL, f"{_PLUGINS}.SlurmLauncher": SLURM}


def take_options(
    overrides: list[str],
) -> tuple[LocalConfig | SlurmConfig, list[str], list[str]]:
    """(the launcher's configuration, the other overrides, errors in the launcher's options)."""
    errors: list[str] = []
    chosen, given, rest = LOCAL, dict[str, str](), []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key == CHOICE:
            chosen = value
        elif key.startswith(PREFIX):
            given[key.removeprefix(PREFIX)] = value
        else:
            rest.append(text)
    offered = options_of(CHOICE)
    name = chosen if chosen in offered else _SHORT.get(chosen, chosen)
    if name not in offered:
        errors.append(f"{CHOICE}={chosen}: unknown{_meant(chosen, offered)}")
        return LocalConfig(), rest, errors
    try:
        values = launcher_values(name)
        kind = _kind(name, values.pop("_target_", None))
    except ConfigError as error:
        return LocalConfig(), rest, error.errors
    return configured(kind, values, given, errors), rest, errors


def _meant(chosen: str, offered: list[str]) -> str:
    """The launcher that an unknown name may be meant to be."""
    found = nearest(chosen, [*offered, *_SHORT], True)
    return re.sub(r"mean (\w+)\?", lambda match: f"mean {_SHORT.get(match[1], match[1])}?", found)


def _kind(name: str, target: str | None) -> str:
    """Which of the two launchers a file of conf/hydra/launcher chooses.

    Raises:
        ConfigError: none of them.
    """
    kind = _SHORT.get(name, name) if target is None else TARGETS.get(target, "")
    if kind not in CONFIGS:
        wanted = f"let its file begin with defaults: [{SLURM}], or [{LOCAL}]"
        raise ConfigError([f"{CHOICE}={name}: _target_={target}: no launcher of ours: {wanted}"])
    return kind


def of_plugin(target: str, values: dict[str, Any]) -> LocalConfig | SlurmConfig:
    """The configuration of Hydra's launcher of that class and those values.

    Raises:
        ConfigError: errors in the values.
    """
    errors: list[str] = []
    config = configured(TARGETS[target], values, {}, errors)
    if errors:
        raise ConfigError(errors)
    return config


def configured(
    kind: str, values: dict[str, Any], given: dict[str, str], errors: list[str]
) -> LocalConfig | SlurmConfig:
    """The configuration of a launcher: the values of its file, and options that are given."""
    cls, typed = CONFIGS[kind], dict[str, Any]()
    known = {field.name: str(field.type) for field in fields(cls)}
    for key, text in given.items():
        name, _, part = key.partition(".")
        if name not in known or (part and not known[name].startswith("dict")):
            errors.append(f"{PREFIX}{key}: no option of {CHOICE}={kind}{_hint(key, kind)}")
        elif not text.strip():
            errors.append(f"{PREFIX}{key}=: empty (null: none)")
        else:
            try:
                value = _value(text, "str" if part else known[name])
            except HydraException as error:
                reason = str(error).splitlines()[0]
                errors.append(f"{PREFIX}{key}={text}: cannot be read: {reason}")
                continue
            before = typed.get(name, values.get(name)) or {} if part else {}
            typed[name] = {**before, part: value} if part else value
    config = build_dataclass(cls, _agreed(cls, values, typed), PREFIX, errors)
    if isinstance(config, SlurmConfig):
        errors += _conflicts(config)
    elif config.mem_gb is not None:
        errors.append(f"{PREFIX}mem_gb={config.mem_gb:g}: memory is not limited on this machine")
    return cast(LocalConfig | SlurmConfig, config)


def _hint(key: str, chosen: str) -> str:
    """What an unknown option of a launcher may be meant to be."""
    known = {name: [field.name for field in fields(cls)] for name, cls in CONFIGS.items()}
    owner = next((name for name, options in known.items() if key in options), None)
    if owner is not None:
        return f", but of {CHOICE}={owner}: give that too"
    return nearest(key, known[chosen], show_all=True)


def _agreed(cls: type, values: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """The values of a file with those that were given; of options that exclude each other, what was
    given takes the place of the file's."""
    more = typed.get("additional_parameters")
    wanted = {name for name, value in typed.items() if value is not None}
    wanted |= {str(name).replace("-", "_") for name in more} if isinstance(more, dict) else set()
    gres = str(typed.get("gres", values.get("gres")))
    if not gres.startswith(("gpu", "shard", "mps")):  # such as a local disk, next to GPUs
        wanted -= {"gres"}
    found = values | typed
    for group in _EXCLUSIVE:
        if wanted & set(group):
            own = {"gres"} if group[0] == "gres" and not gres.startswith("gpu") else set()
            names = {name for name in group if hasattr(cls, name)} - own - set(typed)
            found |= dict.fromkeys(names)
    return found


def _conflicts(config: SlurmConfig) -> list[str]:
    """Errors in options of Slurm that are right one by one."""
    found = [
        f"{PREFIX}additional_parameters.{name}: the launcher sets it itself"
        for name in config.additional_parameters or {}
        if str(name).replace("_", "-") in _OURS
    ]
    if config.timeout_min is not None and config.signal_delay_s >= 60 * config.timeout_min:
        found.append(
            f"{PREFIX}signal_delay_s={config.signal_delay_s}: must be below the wall time, "
            f"{PREFIX}timeout_min={config.timeout_min}: the signal would come at the start"
        )
    for group in _EXCLUSIVE[:2]:
        both = [name for name in group if getattr(config, name, None) is not None]
        if len(both) > 1:
            found.append(f"{', '.join(PREFIX + name for name in both)}: give one of them")
    return found


def _value(text: str, annotation: str) -> Any:
    """The value of an option: text as it is, the rest read by Hydra's grammar."""
    if annotation.startswith("str") and text != "null":
        return text
    return parse_override(f"x={text}").value()
