"""A worker of a study: takes a trial, runs its seeds, tells the value, takes the next.

Any number of workers, on any hosts that share the file system, may come and go.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from optuna.trial import Trial, TrialState

from pipeline import lease, names
from pipeline.console import say
from pipeline.jobs import distill_student
from pipeline.publish import last_line
from pipeline.shell import Shell
from sweeps.board import ERROR, Board, Taken, point_of
from sweeps.report import WORDS, shown
from sweeps.runs import VALUES, TrialDestination, publish, trial_destination, value_of
from trainers.loop import Interrupted

log = logging.getLogger("pipeline")

MOST_FAILURES = 3  # in a row: then it is the machine, or everything


class Pruned(Interrupted):
    """The trial is not worth more epochs."""


def work(board: Board, wanted: int, shell: Shell, study: TrialDestination) -> None:
    """Run trials until `wanted` of them are begun and none can be taken up again.

    Raises:
        Interrupted: asked to stop; the trial's epochs are committed, another worker goes on.
        RuntimeError: several trials in a row failed.
    """
    failures, quiet_since = 0, time.monotonic()
    while not shell.stop():
        taken = board.take(wanted)
        if taken is not None:
            failures = 0 if _run(taken, board, shell, study) else failures + 1
            publish(board, study, shell)
            quiet_since = time.monotonic()
            if failures >= MOST_FAILURES:
                raise RuntimeError(f"{failures} trials in a row failed: this worker ends")
        elif not board.running() or time.monotonic() - quiet_since > 1.5 * board.expiry_s:
            return  # a holder that is gone would have been noticed by now
        else:
            time.sleep(min(1.0, board.heartbeat_s))
    raise Interrupted


def _run(taken: Taken, board: Board, shell: Shell, study: TrialDestination) -> bool:
    """One trial to its end; whether it has a value or was pruned."""
    point = shown(taken.trial)
    say(f"trial    {taken.label}  {point}{'  taken up again' if taken.again else ''}")
    with taken.lease:
        try:
            value, state = _outcome(taken, board, shell, study)
            taken.lease.check()
        except lease.LeaseLost as error:
            say(f"trial    {taken.label} is another worker's now: {error}")
            return True
        # Who was frozen between the check and here is late: what another worker told stands.
        taken.part.tell(taken.trial, value, state, skip_if_finished=True)
    reached = "" if value is None else f"  val {100 * value:.2f} %"
    say(f"{WORDS[state]:8} {taken.label}  {point}{reached}")
    return state != TrialState.FAIL


def _outcome(
    taken: Taken, board: Board, shell: Shell, study: TrialDestination
) -> tuple[float | None, TrialState]:
    """What becomes of a trial.

    Raises:
        Interrupted: asked to stop.
        LeaseLost: it, or a run of it, is someone else's now.
    """
    try:
        return _mean_of_seeds(taken, board, shell, study), TrialState.COMPLETE
    except Pruned:
        return None, TrialState.PRUNED
    except (Interrupted, lease.Interrupted, lease.LeaseLost):
        raise
    except Exception as error:
        taken.lease.check()
        log.exception("trial %s failed", taken.label)
        taken.trial.set_user_attr(ERROR, last_line(error))
        return None, TrialState.FAIL


def _mean_of_seeds(
    taken: Taken, board: Board, shell: Shell, destination: TrialDestination
) -> float:
    """Mean validation accuracy of the selected epochs over the seeds. Test is never looked at."""
    study, values = board.study, dict[str, dict[str, Any]]()
    mine = trial_destination(board, taken.label, destination)
    point = point_of(taken.trial)
    for number, seed in enumerate(study.seeds):
        config = study.at(point, seed)
        follows = config.budget.matched_to is not None  # first it runs others, with their epochs
        prunes = number == 0 and study.pruner != "none" and not follows
        own = replace(
            shell, destination=mine, overrides=study.overrides(point, seed),
            on_epoch=_judge(taken.trial) if prunes else shell.on_epoch,
        )  # fmt: skip
        result = distill_student(config, own)
        taken.lease.check()
        values[str(seed)] = value_of(result)
        taken.trial.set_user_attr(VALUES, values)
    return statistics.fmean(one["val"] for one in values.values())


def _judge(trial: Trial) -> Callable[[list[dict[str, Any]]], None]:
    """Reports each student epoch's validation accuracy, and ends what the pruner gives up. Only
    the first seed is judged: the others come later, at the same steps."""
    told = set(trial.study.trials[trial.number].intermediate_values)

    def judge(history: list[dict[str, Any]]) -> None:
        value = history[-1]["metrics"].get(names.VAL_TOP1)
        step = sum(entry["step"] == "B" for entry in history)
        if history[-1]["step"] != "B" or value is None or step in told:
            return
        told.add(step)
        trial.report(value, step)
        if trial.should_prune():
            raise Pruned

    return judge
