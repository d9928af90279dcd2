"""The time in which Slurm gives no answer: reported once, and at last given up."""

from __future__ import annotations

import time

from pipeline.cli.console import say
from pipeline.launch.controller import Away
from pipeline.outcome import JobsLeft
from trainers.errors import Interrupted


class Outage:
    """How long Slurm has given no answer, if it gives none."""

    def __init__(self, most_min: float) -> None:
        self._most_s = 60 * most_min
        self._since: float | None = None

    def note(self, away: Away, left: str) -> None:
        """Report the first of several failures. `left` is what is left of the jobs.

        Raises:
            Interrupted: there has been no answer for too long (JobsLeft where jobs are left).
        """
        if self._since is None:
            self._since = time.monotonic()
            say(f"Slurm gives no answer ({away}): jobs are taken to be as they were; trying again")
        if time.monotonic() - self._since <= self._most_s:
            return
        text = f"Slurm has not answered for {self._most_s / 60:g} min ({away})"
        if left:
            raise JobsLeft(f"{text}; {left}: run the same command to follow them")
        raise Interrupted(f"{text}: run the same command again")

    def over(self) -> None:
        """Slurm has answered."""
        if self._since is not None:
            say(f"Slurm answers again, after {time.monotonic() - self._since:.0f} s")
        self._since = None
