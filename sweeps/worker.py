"""Worker of a study: claims a trial, runs its seeds, reports the value, claims the next.

Any number of workers may start and end at any time, on any hosts that share the file system.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from optuna.trial import Trial, TrialState

from pipeline.cli.console import say
from pipeline.outcome import INTERRUPTED, last_line, outcome
from pipeline.session import Session
from pipeline.stages.student import distill_student
from pipeline.storage.lease import LeaseLost
from pipeline.storage.run_record import HistoryEntry
from sweeps.summary import WORDS, shown
from sweeps.tracking import VALUES, NestedTarget, publish, trial_target, value_of
from sweeps.trials import ERROR, ClaimedTrial, TrialStore, params_of
from trainers import metrics
from trainers.errors import Interrupted

log = logging.getLogger("pipeline")

MOST_FAILURES = 3  # in a row: then the machine, or the whole study, is at fault


class Pruned(Interrupted):
    """The pruner ended the trial."""


def work(trial_store: TrialStore, wanted: int, session: Session, study: NestedTarget) -> None:
    """Run trials until `wanted` of them are begun and none can be resumed.

    Raises:
        Interrupted: a stop was requested; the trial has a checkpoint, another worker resumes it.
        RuntimeError: several trials in a row failed.
    """
    failures, quiet_since = 0, time.monotonic()
    while not session.stop():
        claimed = trial_store.take(wanted)
        if claimed is not None:
            failures = 0 if _run(claimed, trial_store, session, study) else failures + 1
            publish(trial_store, study, session)
            quiet_since = time.monotonic()
            if failures >= MOST_FAILURES:
                raise RuntimeError(f"{failures} trials in a row failed: this worker ends")
        elif (
            not trial_store.running() or time.monotonic() - quiet_since > 1.5 * trial_store.expiry_s
        ):
            return  # the end of a holder would have been noticed by now
        else:
            time.sleep(min(1.0, trial_store.heartbeat_s))
    raise Interrupted


def _run(
    claimed: ClaimedTrial, trial_store: TrialStore, session: Session, study: NestedTarget
) -> bool:
    """Run one trial; return whether it has a value or was pruned."""
    params = shown(claimed.trial)
    say(f"trial    {claimed.label}  {params}{'  resumed' if claimed.resumed else ''}")
    with claimed.lease:
        try:
            value, state = _outcome(claimed, trial_store, session, study)
            claimed.lease.check()
        except LeaseLost as error:
            say(f"trial    {claimed.label} belongs to another worker: {error}")
            return True
        # A worker that was suspended after the check is late: another worker's value is kept.
        claimed.part.tell(claimed.trial, value, state, skip_if_finished=True)
    reached = "" if value is None else f"  val {100 * value:.2f} %"
    say(f"{WORDS[state]:8} {claimed.label}  {params}{reached}")
    return state != TrialState.FAIL


def _outcome(
    claimed: ClaimedTrial, trial_store: TrialStore, session: Session, study: NestedTarget
) -> tuple[float | None, TrialState]:
    """The value and the state of a trial.

    Raises:
        Interrupted: a stop was requested.
        LeaseLost: the trial, or a run of it, belongs to another process.
    """
    try:
        return _mean_of_seeds(claimed, trial_store, session, study), TrialState.COMPLETE
    except Pruned:
        return None, TrialState.PRUNED
    except Exception as error:
        if outcome(error).exit_code == INTERRUPTED.exit_code:
            raise
        claimed.lease.check()
        log.exception("trial %s failed", claimed.label)
        claimed.trial.set_user_attr(ERROR, last_line(error))
        return None, TrialState.FAIL


def _mean_of_seeds(
    claimed: ClaimedTrial, trial_store: TrialStore, session: Session, target: NestedTarget
) -> float:
    """Mean validation accuracy of the selected epochs over the seeds; test images are not used."""
    study, values = trial_store.study, dict[str, dict[str, Any]]()
    mine = trial_target(trial_store, claimed.label, target)
    params = params_of(claimed.trial)
    for number, seed in enumerate(study.seeds):
        config = study.at(params, seed)
        depends = (
            config.budget.matched_to is not None
        )  # on other runs, which have epochs of their own
        prunes = number == 0 and study.pruner != "none" and not depends
        own = replace(
            session,
            target=mine,
            overrides=study.overrides(params, seed),
            on_epoch=_judge(claimed.trial) if prunes else session.on_epoch,
        )
        result = distill_student(config, own)
        claimed.lease.check()
        values[str(seed)] = value_of(result)
        claimed.trial.set_user_attr(VALUES, values)
    return statistics.fmean(one["val"] for one in values.values())


def _judge(trial: Trial) -> Callable[[list[HistoryEntry]], None]:
    """Reports the validation accuracy of each student epoch to the pruner. Only the first seed is
    judged: the other seeds run later, at the same steps."""
    reported = set(trial.study.trials[trial.number].intermediate_values)

    def judge(history: list[HistoryEntry]) -> None:
        value = history[-1]["metrics"].get(metrics.VAL_TOP1)
        step = sum(entry["step"] == "B" for entry in history)
        if history[-1]["step"] != "B" or value is None or step in reported:
            return
        reported.add(step)
        trial.report(value, step)
        if trial.should_prune():
            raise Pruned

    return judge
