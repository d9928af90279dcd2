"""What Slurm's words mean here: why a job waits, why it was refused, and what to type."""

from __future__ import annotations

import re
import shutil

from analysis.suggest import nearest
from pipeline.launch.controller import Away, ask
from pipeline.launch.options import PREFIX, SlurmConfig

# Words of a pending job that never starts as it was submitted, or of one that sbatch refused, and
# the options that they are about. The first that fits counts.
_NODE = ("cpus_per_task", "mem_gb", "gres", "partition")
_ABOUT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"time.?limit|wall|\btime\b", ("timeout_min",)),
    (r"mem(ory)?([A-Z_ ]|$)|\bmem\b", ("mem_gb",)),
    (r"gres|gpu|generic resource", ("gres",)),
    (r"cpu", ("cpus_per_task",)),
    (r"account|association", ("account",)),
    (r"partition.?node.?limit|node configuration|partition.?config|max.?node|min.?node", _NODE),
    (r"partition", ("partition",)),
    (r"feature|constraint", ("constraint",)),
    (r"reservation", ("reservation",)),
    (r"qos", ("qos",)),
    (r"node name|node list|nodelist|required node", ("nodelist", "exclude")),
    (r"option|exclusive|unrecognized|invalid", ("additional_parameters",)),
)
# Reasons of pending jobs, in lower case and without blanks and underscores. A limit of one job
# cannot be met later; a limit of a user, an account, a group or a partition can.
_NEVER = re.compile(
    r"partition(node|time)limit|partitionconfig|badconstraints|invalid(account|qos)|maxmemperlimit|"
    r"(account|qos)notallowed|reservationdeleted|resvdelhold|deadline|"
    r"(qos|assoc)max(?!jobs|submit)\w*(perjob|pernode)\w*|(qos|assoc)min\w*"
)
_HELD = re.compile(
    r"jobheld(user|admin)|.*requeued.*held.*|jobholdmaxrequeue|requeuehold|specialexit"
)
_ROOM = re.compile(
    r"max_?submit|grp_?submit|submit_?jobs?_?(per|limit)|job submit limit|queue full|"
    r"max_?job_?count",
    re.I,
)


def key(reason: str) -> str:
    """A reason of Slurm as it is compared: versions differ in blanks, case and underscores."""
    return re.sub(r"[\s_]+", "", reason.partition(",")[0]).lower()


def never_starts(reason: str, config: SlurmConfig) -> bool:
    """Whether a job that is pending for this reason can never start as it was submitted."""
    if key(reason) == "partitionnodelimit" and config.nodelist is not None:
        return False  # those nodes may be down
    return _NEVER.fullmatch(key(reason)) is not None


def is_held(reason: str) -> bool:
    """Whether a job that is pending for this reason waits for somebody to release it."""
    return _HELD.fullmatch(key(reason)) is not None


def is_full(message: str) -> bool:
    """Whether sbatch refused because the user has as many jobs as the site allows at once."""
    return _ROOM.search(message) is not None


def options_about(words: str) -> tuple[str, ...]:
    """The options of the launcher that Slurm's words are about."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words)
    for text in (words, spaced):
        for pattern, names in _ABOUT:
            if re.search(pattern, text, re.I):
                return names
    return ()


def advice(words: str, config: SlurmConfig) -> str:
    """The options that Slurm's words are about with their values, and what the site offers."""
    names = options_about(words)
    given = options_as_given(names, config)
    found = _site(config) if set(names) & {*_NODE, "timeout_min"} else ""
    asked = re.search(r"partition specified: (\S+)", words)
    if asked and found:
        known = [line.split()[0].rstrip("*") for line in found.split("; ")]
        found += nearest(asked[1], known)
    return (given or f"{PREFIX}*") + (f" (partitions: {found})" if found else "")


def options_as_given(names: tuple[str, ...], config: SlurmConfig) -> str:
    """Options with their values, and how many runs share a job where a job has that many times the
    value."""
    if config.runs_per_job > 1 and {"mem_gb", "cpus_per_task"} & set(names):
        names = (*names, "runs_per_job")
    return ", ".join(f"{PREFIX}{name}={_shown(getattr(config, name))}" for name in names)


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def _site(config: SlurmConfig) -> str:
    """Partitions with the limits of their jobs and the size of their nodes; empty if unknown."""
    try:
        answer = ask("sinfo", "--noheader", "--format=%P|%l|%c|%m|%G", patience_s=20.0)
    except Away:
        return ""
    rows = [line.split("|") for line in answer.out.splitlines() if line.count("|") == 4]
    if answer.code != 0:
        return ""
    return "; ".join(
        f"{name}{'' if limit == 'infinite' else f' up to {limit}'} of nodes with {cores} cores, "
        f"{memory} MB{'' if gres == '(null)' else f', {gres}'}"
        for name, limit, cores, memory, gres in rows[:8]
    )


def default_gres(config: SlurmConfig) -> str | None:
    """`gpu:1` where the partition of the jobs has GPUs, or where nothing is known of it.

    Raises:
        Away: Slurm gave no answer.
    """
    if shutil.which("sinfo") is None:
        return "gpu:1"
    answer = ask("sinfo", "--noheader", "--format=%P|%G", patience_s=20.0)
    rows = [line.split("|") for line in answer.out.splitlines() if line.count("|") == 1]
    wanted = set((config.partition or "").split(",")) - {""}
    kinds = [
        gres
        for name, gres in rows
        if (name.rstrip("*") in wanted if wanted else name.endswith("*"))
    ]
    return None if kinds and not any("gpu" in gres for gres in kinds) else "gpu:1"
