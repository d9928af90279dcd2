"""Jobs by Slurm: submitted as arrays, followed in the queue.

How a job ended is read from the file that it leaves, from the queue, which keeps a job for some
minutes after its end, and from its log; never from Slurm's accounting, which many sites lack. A
controller that gives no answer changes nothing: what was known last holds, and it is asked again.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.config import ConfigError
from pipeline.launch import controller, ending, reasons
from pipeline.launch.base import DONE, ENDED, FAILED, NOT_RUN, RUNNING, WAITING, Status, Task
from pipeline.launch.controller import Away, Call, QueuedJob, job_of, never
from pipeline.launch.evidence import Evidence, end_of
from pipeline.launch.options import CHOICE, LOCAL, PREFIX, SLURM, SlurmConfig
from pipeline.launch.outage import Outage
from pipeline.launch.submission import SETTLE_S, Submitter
from pipeline.storage.atomic import write_atomic
from pipeline.storage.lease import acquire

_LOOK_S = 0.5  # how long one poll waits for the answer to a look
_ABSENT_S = 30.0  # the file of a job that left the queue may appear this much later (NFS caches)
_STUCK_S = 15.0  # how long a job must be pending for a reason that never passes
_ROOM_S = 30.0  # between two tries to submit jobs that the site had no room for
_PAUSE_S = 2.0  # between two tries of a command that cancels
_RUNNING = {
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "STAGE_OUT",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
    "SIGNALING",
}


class Slurm:
    """Submits arrays and polls the queue; jobs outlive this process."""

    survives = True

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise ConfigError(
                [
                    f"{CHOICE}={SLURM}: sbatch is not on this machine: run this on a login node, "
                    f"or use {CHOICE}={LOCAL}"
                ]
            )
        self._submitter = Submitter(config, folder)
        self.tasks: dict[str, Task] = {}
        self.unsent: dict[str, str] = {}  # tasks without a job -> why
        self._stop: Callable[[], bool] = never
        self._began = self._cancellations()
        self._outage = Outage(config.away_min)
        self._again = Counter[str]()  # how often a task was submitted again
        self._forget()

    def _forget(self) -> None:
        """Begin a round of tasks."""
        self._status: dict[str, Status] = {}
        self._since: dict[str, float] = {}  # when a task was first seen as it is now
        self._joined, self._looked, self._room_at = False, float("-inf"), float("-inf")
        self._call: Call | None = None

    def submit(self, tasks: list[Task], stop: Callable[[], bool] = never) -> None:
        """Submit arrays of tasks with the same dependencies; tasks come after those that they
        depend on. Jobs of another command that are in the queue are followed, not submitted. What
        cannot be submitted now is submitted by later polls.

        Raises:
            ConfigError: Slurm refuses the job.
        """
        self.tasks, self._stop = {task.name: task for task in tasks}, stop
        self.unsent = dict.fromkeys(self.tasks, "")
        self._forget()
        self._step(controller.ANSWER_S)

    def poll(self) -> dict[str, Status]:
        """The last known status of every task.

        Raises:
            ConfigError: Slurm refuses a job.
            Interrupted: Slurm has not answered for minutes.
        """
        if time.monotonic() - self._looked >= self.config.poll_s:
            self._step(_LOOK_S)
        return dict(self._status)

    def cancel(self) -> int:
        """scancel for the jobs that are in the queue; a command that follows them submits no more.

        Raises:
            ConfigError: Slurm refuses it.
            Interrupted: Slurm has not answered for minutes.
        """
        while True:
            try:
                with acquire(self.folder, poll_s=0.2):
                    if self._settled():
                        queue = self._queue()
                        write_atomic(self.folder / "cancelled", secrets.token_hex(8).encode())
                        queued = {job_of(j) for j in self.jobs.values() if _is_live(queue, j)}
                        self._cancel(sorted(queued))
                        return len(queued)
            except Away as away:
                self._outage.note(away, self.left())
            time.sleep(_PAUSE_S)

    def left(self) -> str:
        names = [name for name in self.tasks if self._status_of(name).state not in ENDED]
        # Before the first answer, jobs of an earlier command may be in the queue; and a job whose
        # submission was not answered.
        maybe = {*self._submitter.unsure(), *(() if self._joined else self.jobs)}
        queued = [name for name in names if name not in self.unsent or name in maybe]
        if not queued:
            return ""
        more = len(names) - len(queued)
        jobs = {self._job(name) if name in self.jobs else name for name in queued}
        rest = f"; {more} are not submitted yet, the same command submits them" if more else ""
        return f"{len(jobs)} job{'s keep' if len(jobs) > 1 else ' keeps'} running{rest}"

    def log_of(self, name: str) -> Path:
        """Its own; that of its job, where it did not come to begin one."""
        if name not in self.jobs:
            return self.folder
        log, shared = (
            self._jobs_folder / f"{job}.out" for job in (self.jobs[name], self._job(name))
        )
        return log if log.exists() else shared

    def _step(self, wait_s: float) -> None:
        """Look, judge every task, and submit what has no job."""
        try:
            answer = self._answer(wait_s)
            if answer is None:
                return
            queue = controller.jobs_of(answer)
            self._outage.over()
            if self._joined:
                self._judge(queue)
            if not self._joined or self.unsent:
                with acquire(self.folder, poll_s=0.2, should_stop=self._stop):
                    self._join(queue)
                    if self.unsent and self._settled():
                        self._send(queue)
        except Away as away:
            if not self._joined and not self.jobs and "fatal" in str(away):
                raise ConfigError(
                    [f"{CHOICE}={SLURM}: does not work on this machine: {away}"]
                ) from away
            self._outage.note(away, self.left())
        for name in self.tasks:  # of which nothing is known yet
            self._status.setdefault(name, Status())
        self._looked = time.monotonic()

    def _answer(self, wait_s: float) -> controller.Answer | None:
        """The answer to a look that has begun; None: not yet."""
        self._call = self._call or controller.look()
        end = time.monotonic() + wait_s
        try:
            while (answer := self._call.answer(0.2)) is None:
                if self._stop() or time.monotonic() > end:
                    return None
        except Away:
            self._call = None
            raise
        self._call = None
        return answer

    def _queue(self) -> dict[str, QueuedJob]:
        """The jobs of this user, waited for.

        Raises:
            Away: Slurm gave no answer.
        """
        self._call = None
        answer = self._answer(controller.ANSWER_S)
        if answer is None:
            raise Away("interrupted")
        return controller.jobs_of(answer)

    def _join(self, queue: dict[str, QueuedJob]) -> None:
        """Follow the jobs that another command has submitted, now or since the last look."""
        before = dict(self.jobs)
        self._submitter.load()
        if self._joined:
            for name in [n for n in self.unsent if self.jobs.get(n) != before.get(n)]:
                self._note_job(name)
            return
        live = {name for name, job in self.jobs.items() if _is_live(queue, job)}
        self.unsent = {name: "" for name in self.tasks if name not in live}
        self._joined = True
        self._judge(queue)

    def _note_job(self, name: str) -> None:
        """A task has a job now, which the last answer of the queue cannot contain."""
        self.unsent.pop(name, None)
        if name in self.tasks:
            self._status[name] = Status(WAITING, f"job {self._job(name)} submitted")

    def _judge(self, queue: dict[str, QueuedJob]) -> None:
        for name, task in self.tasks.items():
            before = self._status_of(name)
            if before.state not in ENDED:
                self._status[name] = self._one(task, queue)

    def _status_of(self, name: str) -> Status:
        return self._status.get(name, Status())

    def _one(self, task: Task, queue: dict[str, QueuedJob]) -> Status:
        name, states = task.name, [self._status_of(other).state for other in task.after]
        if name in self.unsent:
            if FAILED in states:
                del self.unsent[name]
                return Status(FAILED, NOT_RUN)
            if self._cancellations() != self._began:
                del self.unsent[name]
                return Status(FAILED, "cancelled before it was submitted", cancelled=True)
            return Status(WAITING, self.unsent[name])
        job = self._job(name)
        if _is_live(queue, job):
            return self._live(name, queue[job], FAILED in states)
        found = end_of(self._jobs_folder, self.jobs[name], queue.get(job), self.config)
        if not found.certain:
            if FAILED in states:
                return Status(FAILED, NOT_RUN)
            if any(state != DONE for state in states):
                return Status(WAITING, f"job {job} waits for another")
            limit = _ABSENT_S if found.state in ("", "COMPLETED", "FAILED") else SETTLE_S
            if not self._lasts(f"{self.jobs[name]} gone", min(limit, _ABSENT_S)):
                return Status(RUNNING, f"job {job} has left the queue")
        return self._ended(name, job, found)

    def _live(self, name: str, job: QueuedJob, idle: bool) -> Status:
        """The status of a job that is in the queue; `idle` if one that it depends on has failed."""
        number, state = self._job(name), job.state.lower()
        if idle and reasons.key(job.reason) == "dependencyneversatisfied":
            self._cancel([number])  # Slurm does that itself, unless the site forbids it
            return Status(FAILED, NOT_RUN)
        if job.state in _RUNNING:
            return Status(RUNNING, f"job {number} {state}")
        why = f"job {number} {state}{job.reason and ': '}{job.reason}"
        if reasons.is_held(job.reason):
            return Status(WAITING, f"{why}; `scontrol release {number}` starts it")
        if not reasons.never_starts(job.reason, self.config):
            return Status(WAITING, why)
        if not self._lasts(f"{number} {reasons.key(job.reason)}", _STUCK_S):
            return Status(WAITING, why)
        self._cancel([number])
        note = f"can never start ({job.reason}): change {reasons.advice(job.reason, self.config)}"
        return Status(FAILED, note, refused=True)

    def _lasts(self, what: str, seconds: float) -> bool:
        """Whether something has been seen for so long."""
        return time.monotonic() - self._since.setdefault(what, time.monotonic()) >= seconds

    def _ended(self, name: str, job: str, found: Evidence) -> Status:
        """The status of a job that has ended; one that was interrupted without its fault is to be
        submitted again, with the tasks that wait for it."""
        if found.code == 0:
            return Status(DONE, f"job {job}")
        note = f"job {job}: {found.reason}"
        if found.how == ending.CANCELLED:
            return Status(FAILED, f"{note}: see {self.log_of(name)}", cancelled=True)
        if found.how != ending.LOST:
            return Status(FAILED, f"{note}: see {self.log_of(name)}")
        if not self.config.requeue or self._again[name] >= self.config.max_num_timeout:
            again = f"submitted again {self._again[name]} times, "
            again += f"{PREFIX}requeue={str(self.config.requeue).lower()}"
            return Status(FAILED, f"{note} ({again}): run the same command to resume")
        self._again[name] += 1
        self._call_back(name, f"{note}; submitted again")
        return Status(WAITING, self.unsent[name])

    def _call_back(self, name: str, why: str) -> None:
        """Submit a task again, and those that depend on it, whose jobs Slurm drops."""
        self.unsent[name] = why
        jobs = []
        for task in self.tasks.values():  # after those that they depend on
            first = next((other for other in task.after if other in self.unsent), None)
            ended = self._status_of(task.name).state in ENDED
            if first is not None and task.name not in self.unsent and not ended:
                self.unsent[task.name] = f"waits for {first}"
                jobs.append(self.jobs[task.name])
        with suppress(Away):
            self._cancel(jobs)

    def _cancel(self, jobs: list[str]) -> None:
        """scancel.

        Raises:
            Away: Slurm gave no answer.
            ConfigError: it refuses.
        """
        ids = list(dict.fromkeys(job_of(job) for job in jobs))
        if ids and (refused := controller.cancel(ids, self._stop)):
            raise ConfigError([f"Slurm does not cancel the jobs: {refused}"])

    def _send(self, queue: dict[str, QueuedJob]) -> None:
        """Submit what has no job, in arrays of at most the size that the site allows; what there is
        no room for now, later."""
        if time.monotonic() < self._room_at:
            return
        for (after, pack), names in self._alike().items():
            if set(after) & set(self.unsent):
                continue  # later, when these have jobs
            ids = [job_of(self.jobs[a]) for a in after if self._status_of(a).state != DONE]
            largest = self._submitter.largest_array(self._stop) if len(names) > pack else 1
            size = min(len(names), pack * largest)
            parallel = self.config.array_parallelism or len(names)
            parallel = max(1, parallel // -(-len(names) // size))
            while names:
                chunk = names[:size]
                tasks = [self.tasks[name] for name in chunk]
                refused = self._submitter.submit(tasks, ids, parallel, self._stop, pack)
                if refused is None:
                    for name in chunk:
                        self._note_job(name)
                    names = names[len(chunk) :]
                elif len(chunk) > pack:
                    size = pack * max(1, len(chunk) // pack // 2)
                else:
                    self._wait_for_room(refused, queue)
                    return

    def _alike(self) -> dict[tuple[tuple[str, ...], int], list[str]]:
        """The tasks without a job by what they depend on and how many share a job: one on which
        others depend has a job to itself, because Slurm's dependencies are of jobs."""
        needed = {name for task in self.tasks.values() for name in task.after}
        found: dict[tuple[tuple[str, ...], int], list[str]] = {}
        for name in self.unsent:
            pack = 1 if name in needed else self.config.runs_per_job
            found.setdefault((self.tasks[name].after, pack), []).append(name)
        return found

    def _wait_for_room(self, refused: str, queue: dict[str, QueuedJob]) -> None:
        """Try again later.

        Raises:
            ConfigError: this user has no job that could make room.
        """
        mine = any(not job.has_ended for job in queue.values()) or any(
            name in self.jobs and name not in self.unsent and status.state not in ENDED
            for name, status in self._status.items()
        )
        if not mine and "grp" not in refused.lower():  # a limit of a group is others' jobs, too
            raise ConfigError([f"Slurm accepts not even one job: {refused}"])
        self._room_at = time.monotonic() + _ROOM_S
        for name in self.unsent:
            self.unsent[name] = f"not submitted yet, no room: {refused}"

    def _settled(self) -> bool:
        """Whether it is known what became of every submission."""
        adopted = self._submitter.settle(self._stop)
        for name in adopted or ():
            self._note_job(name)
        return adopted is not None

    @property
    def jobs(self) -> dict[str, str]:
        """The ids of jobs, by the names of their tasks."""
        return self._submitter.jobs

    def _job(self, name: str) -> str:
        """The job of a task as Slurm knows it: one of several that share it has a longer id."""
        return job_of(self.jobs[name])

    @property
    def _jobs_folder(self) -> Path:
        return self._submitter.folder

    def _cancellations(self) -> str:
        """Changes whenever a command cancels the jobs."""
        try:
            return (self.folder / "cancelled").read_text()
        except OSError:
            return ""


def _is_live(queue: dict[str, QueuedJob], job: str) -> bool:
    """Whether a job is in the queue and has not ended."""
    return job_of(job) in queue and not queue[job_of(job)].has_ended
