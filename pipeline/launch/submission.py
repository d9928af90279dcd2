"""Submitting: the batch script of a configuration, the file with its tasks, and the ids of jobs.

A script is noted before it is given to Slurm. Should the answer be lost, or this process be killed,
the job is found by the path of its script, and nothing is submitted twice.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError
from pipeline.launch import reasons
from pipeline.launch.base import Task, job_folder
from pipeline.launch.controller import SUBMIT_S, Away, ask, job_of_script, part_of
from pipeline.launch.options import PREFIX, SlurmConfig
from pipeline.launch.private import make_private
from pipeline.storage.atomic import write_atomic

log = logging.getLogger("pipeline")

SIGNAL = "USR2"
SETTLE_S = 5.0  # a submission whose answer was lost appears in the queue by then
_LARGEST_ARRAY = 1000  # Slurm's default
# Options that have another name or meaning in sbatch. Any other goes to it as it is.
_TAKEN = {
    "name",
    "nodes",
    "runs_per_job",
    "cpus_per_task",
    "tasks_per_node",
    "submitit_folder",
    "stderr_to_stdout",
    "mem_gb",
    "timeout_min",
    "array_parallelism",
    "setup",
    "srun_args",
    "additional_parameters",
    "signal_delay_s",
    "requeue",
    "max_num_timeout",
    "poll_s",
    "away_min",
}


class Submitter:
    """Submits the jobs of a command; `jobs` are their ids, by the names of their tasks."""

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        self.config, self.folder = config, job_folder(config.submitit_folder, folder / "jobs")
        self._file = folder / "slurm.json"
        self._unsure = folder / "submitting.json"  # what has begun and not ended, if anything has
        self._unsure_since: float | None = None
        self._largest: int | None = None
        self.load()

    def load(self) -> None:
        """Read the jobs that were submitted by any command."""
        self.jobs: dict[str, str] = {}
        try:
            found = json.loads(self._file.read_text())
            self.jobs = {str(name): str(job) for name, job in found.items()}
        except FileNotFoundError:
            pass  # nothing was submitted
        except (OSError, ValueError, AttributeError) as error:
            log.warning("%s cannot be read (%s): its jobs are not followed", self._file, error)

    def submit(
        self,
        tasks: list[Task],
        after: list[str],
        parallel: int,
        stop: Callable[[], bool],
        pack: int = 1,
    ) -> str | None:
        """Submit one job, or an array, of `pack` tasks a job; why there is no room for it, if there
        is none.

        Raises:
            Away: Slurm gave no answer.
            ConfigError: it refuses.
        """
        pack = min(pack, len(tasks))
        self._resolve_gres()
        make_private(self.folder)
        script = write(self.folder, self.config, tasks, after, parallel, pack)
        names = [task.name for task in tasks]
        note = {"script": str(script), "names": names, "pack": pack}
        write_atomic(self._unsure, json.dumps(note).encode())
        answer = ask("sbatch", str(script), patience_s=SUBMIT_S, stop=stop)
        if answer.code == 0:
            if found := re.search(r"job (\d+)", answer.out):
                self._adopt(names, found[1], pack)
                return None
            raise Away(f"sbatch printed {answer.out.strip()[:100]!r}")
        self._unsure.unlink(missing_ok=True)
        lines = [line.strip() for line in answer.errors.splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith("sbatch: ")] or lines or [answer.reason]
        # The last line is the same for every limit of an account; one before it names the limit.
        words = " ".join([line for line in lines if "submission failed" not in line] or lines)
        if reasons.is_full(words):
            return words
        about = reasons.advice(words, self.config)
        raise ConfigError([f"{about}: Slurm refused the job: {'; '.join(lines)}"])

    def settle(self, stop: Callable[[], bool]) -> list[str] | None:
        """The tasks of a submission whose answer was lost, if there was one and its job is in the
        queue; None while that is not known.

        Raises:
            Away: Slurm gave no answer.
        """
        script, names, pack = self._noted()
        if not names:
            self._unsure_since = None
            return []
        if (number := job_of_script(script, stop)) is not None:
            self._adopt(names, number, pack)
            return names
        self._unsure_since = self._unsure_since or time.monotonic()
        if time.monotonic() - self._unsure_since < SETTLE_S:
            return None
        self._unsure.unlink(missing_ok=True)
        self._unsure_since = None
        return []

    def unsure(self) -> list[str]:
        """The tasks of a submission that was not answered; empty if there is none."""
        return self._noted()[1]

    def _noted(self) -> tuple[str, list[str], int]:
        """The script, the tasks and the tasks a job of a submission that was not answered. A note
        that was cut short was not yet given to Slurm."""
        try:
            text = json.loads(self._unsure.read_text())
            names = [str(name) for name in text["names"]]
            return str(text["script"]), names, int(text.get("pack", 1))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "", [], 1

    def largest_array(self, stop: Callable[[], bool]) -> int:
        """How many jobs an array may have.

        Raises:
            Away: Slurm gave no answer.
        """
        if self._largest is None:
            text = ask("scontrol", "show", "config", stop=stop).out
            limits = re.findall(r"(?:MaxArraySize\s*=\s*|max_array_tasks=)(\d+)", text)
            numbers = [int(number) for number in limits if int(number) > 0]
            self._largest = min(numbers, default=_LARGEST_ARRAY)
        return self._largest

    def _adopt(self, names: list[str], number: str, pack: int) -> None:
        """Note the jobs of a submission; at once, because the next one may be refused."""
        for k, name in enumerate(names):
            job = number if len(names) <= pack else f"{number}_{k // pack}"
            self.jobs[name] = part_of(job, k % pack) if pack > 1 else job
        write_atomic(self._file, json.dumps(self.jobs).encode())
        self._unsure.unlink(missing_ok=True)

    def _resolve_gres(self) -> None:
        """Replace `gres=auto` by what the partition has.

        Raises:
            Away: Slurm gave no answer.
        """
        config = self.config
        if config.gres != "auto":
            return
        more = {str(name).replace("-", "_") for name in config.additional_parameters or {}}
        gres = None
        if not (config.gpus_per_node or config.gpus_per_task or more & {"gres", "gpus"}):
            gres = reasons.default_gres(config)
            if gres is None:
                log.warning(
                    "the partition has no GPU: jobs run without one (%spartition=NAME chooses one)",
                    PREFIX,
                )
        self.config = replace(config, gres=gres)


def write(
    folder: Path,
    config: SlurmConfig,
    tasks: list[Task],
    after: list[str],
    parallel: int,
    pack: int = 1,
) -> Path:
    """Write the script of a job, or of an array of jobs for several tasks, `pack` in each, and its
    tasks; return the script. The jobs start after those of the ids `after` have succeeded."""
    path = folder / f"{secrets.token_hex(8)}.sh"
    text = {
        "tasks": [asdict(task) for task in tasks],
        "requeue": config.requeue,
        "most": config.max_num_timeout,
        "pack": pack,
        "errors": not config.stderr_to_stdout,
    }
    write_atomic(path.with_suffix(".json"), json.dumps(text).encode())
    jobs = -(-len(tasks) // pack)
    array = f"0-{jobs - 1}%{min(jobs, parallel)}" if jobs > 1 else None
    write_atomic(path, script(path, config, array, after, pack).encode())
    return path


def script(
    path: Path, config: SlurmConfig, array: str | None, after: list[str], tasks: int = 1
) -> str:
    """The batch script of jobs of so many tasks each, which are one task for Slurm."""
    cores = None if config.cpus_per_task is None else tasks * config.cpus_per_task
    memory = None if config.mem_gb is None else f"{round(tasks * config.mem_gb * 1024)}M"
    log = str(path.parent / ("%j.out" if array is None else "%A_%a.out"))
    errors = None if config.stderr_to_stdout else log.removesuffix("out") + "err"
    options = {
        "job-name": config.name or "asib",
        "nodes": 1,
        "ntasks": 1,
        "time": config.timeout_min,
        "cpus_per_task": cores,
        "mem": memory,
    }
    options |= {name: value for name, value in vars(config).items() if name not in _TAKEN}
    options |= {"signal": f"{SIGNAL}@{config.signal_delay_s}", "array": array}
    options |= {"output": log, "error": errors, "open-mode": "append"}
    options |= {"requeue": True} if config.requeue else {"no-requeue": True}
    if after:
        options |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    options = {name.replace("_", "-"): value for name, value in options.items()}
    more = {n.replace("_", "-"): v for n, v in (config.additional_parameters or {}).items()}
    lines = [_line(name, value) for name, value in sorted({**options, **more}.items())]
    srun = ["srun", "--unbuffered", f"--output={log}", "--open-mode=append"]
    srun += [] if errors is None else [f"--error={errors}"]
    srun += [] if cores is None else [f"--cpus-per-task={cores}"]  # srun does not inherit it
    module = "slurm_job" if tasks == 1 else "packed_job"
    job = [sys.executable, "-u", "-m", f"pipeline.launch.{module}", str(path.with_suffix(".json"))]
    return "\n".join(
        [
            "#!/bin/bash",
            *filter(None, lines),
            *(re.sub(r"\s+$", "", line) for line in config.setup or []),
            shlex.join([*srun, *(config.srun_args or []), *job]),
            "",
        ]
    )


def _line(name: str, value: Any) -> str:
    """`#SBATCH --name=value`; empty for null and false."""
    if value is None or value is False:
        return ""
    return f"#SBATCH --{name}" + ("" if value is True else f"={shlex.quote(str(value))}")
