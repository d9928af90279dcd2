"""A task as a job of Slurm: `python -m pipeline.launch.slurm_job FILE`.

The job runs the ordinary command line, which handles Slurm's signals itself: it writes a checkpoint
and ends with 75. The job then requeues itself. How it ended is in a file next to its log. Modules
of this project that take long to import are imported after the signal handlers are in place.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.launch.ending import Ending
from pipeline.launch.requeue import SIGNALS, Requeue, own_job_id


@dataclass
class SlurmJob:
    """A task, and whether its job may be requeued."""

    task: dict[str, Any]  # of a Task
    requeue: Requeue
    folder: Path  # of the logs

    def run(self) -> int:
        """Run the command; requeue the job if it was interrupted after a checkpoint. Return the
        exit code, so that Slurm reports FAILED where it is not 0."""
        self.ending_file.unlink(missing_ok=True)  # of the job before it was requeued
        for number in SIGNALS:
            signal.signal(number, self._interrupted_early)
        from pipeline.launch.base import Task, execute
        from pipeline.outcome import INTERRUPTED

        ending = execute(Task.of(self.task))
        if ending.code == INTERRUPTED.exit_code:
            ending = self.requeue.interrupted()
        ending.save(self.ending_file)
        return ending.code

    @property
    def ending_file(self) -> Path:
        return Ending.file(self.folder, own_job_id(os.environ))

    def _interrupted_early(self, number: int, frame: FrameType | None) -> None:
        """A signal before the command has installed its handlers: nothing has begun."""
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        ending = self.requeue.interrupted()
        ending.save(self.ending_file)
        os._exit(ending.code)


def main(path: str) -> int:
    """Run the task of this job from the file of its array."""
    file = Path(path)
    text = json.loads(file.read_text())
    task = text["tasks"][int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    return SlurmJob(task, Requeue(text["requeue"], text["most"]), file.parent).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
