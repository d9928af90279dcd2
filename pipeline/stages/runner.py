"""Run a stage: reuse what is finished, go on with what was cut off, else start.

Each epoch is committed with its metrics before the tracker hears of it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from analysis import tags
from pipeline.cli.console import StageProgress, say, warn
from pipeline.outcome import FAILED, KILLED, error_tags, last_line, outcome
from pipeline.session import Session, slow_precision
from pipeline.storage.lease import Holder, Lease, acquire
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.background import Tracker
from pipeline.tracking.upload import UploadState, now_ms, replay
from trainers import health, measures, metrics
from trainers.errors import Interrupted
from trainers.loop import Epoch, NonFinite, Progress, reset_peak_memory

log = logging.getLogger("pipeline")


class State(Protocol):
    """What a trainer changes: enough of it to go on bit for bit."""

    progress: Progress
    best: dict[str, Any]
    stop: Callable[[], bool]

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...
    def selected(self) -> dict[str, Tensor]: ...


@dataclass
class Job:
    """One stage to run, bound to its configuration, data and teachers."""

    folder: RunFolder
    name: str  # distill-L3-digits-s0
    weights: str  # name of the safetensors file: "student" or "teacher"
    spec: dict[str, Any]  # written once: identity, configuration, tags, params, texts
    epochs: int
    new_state: Callable[[], State]
    train: Callable[[State], Iterator[Epoch]]
    test: Callable[[dict[str, Tensor]], tuple[nn.Module, dict[str, float]]]
    bank_seconds: Callable[[], float] = lambda: 0.0


def run(job: Job, session: Session) -> dict[str, Any]:
    """The job's result, with its key: taken from the store, or trained.

    Raises:
        Interrupted: asked to stop; committed, the same call goes on.
        LeaseLost: another process took over.
        Exception: the run is FAILED in the tracking store, with its traceback.
    """
    key = {"key": job.folder.key}
    result = job.folder.result()
    if result is None:
        with _lease(job, session) as lease:
            result = job.folder.result()  # by whoever held the lease before
            if result is None:
                return _run_tracked(job, session, lease) | key
    say(f"reused   {job.name}  key {job.folder.key}  {summary(result)}")
    _replay(job, session)
    return result | key


def summary(result: dict[str, Any]) -> str:
    """A finished run's numbers in half a line."""
    m = result["metrics"]
    parts = [
        f"{label} {100 * m[key]:.2f} %"
        for label, key in (("val", metrics.BEST_VAL_TOP1), ("test", metrics.TEST_TOP1))
        if m.get(key) is not None
    ]
    return "  ".join([*parts, f"{m[metrics.RUN_SECONDS]:.0f} s"])


def _lease(job: Job, session: Session) -> Lease:
    def waiting(holder: Holder) -> None:
        say(f"waiting  {job.name}  key {job.folder.key} is being trained by {holder}")

    runtime = session.runtime
    return acquire(
        job.folder.path,
        heartbeat_s=runtime.heartbeat_s,
        expiry_s=runtime.expiry_s,
        poll_s=min(1.0, runtime.heartbeat_s),
        on_wait=waiting,
        should_stop=session.stop,
    )


def _replay(job: Job, session: Session) -> None:
    """See to it that the present experiment has a run of this key."""
    try:
        replay(job.folder, session.target, log_model=session.runtime.log_model)
    except Exception as error:  # noqa: BLE001 - told; the result itself is in the store
        log.warning("the tracking store cannot be reached (%s): sync later", last_line(error))


def _run_tracked(job: Job, session: Session, lease: Lease) -> dict[str, Any]:
    if job.folder.read_json("spec") is None:
        job.folder.write_json("spec", job.spec | {"folder": secrets.token_hex(8)})
    runtime = session.runtime
    tracker = Tracker(
        job.folder,
        session.target,
        retry_s=runtime.retry_s,
        timeout_s=runtime.sync_timeout_s,
        log_model=runtime.log_model,
        lease=lease,
    )
    record = UploadState.load(job.folder, session.target)
    record.save(job.folder, session.target)  # where it is meant to go, should nothing arrive
    tracker.start()
    try:
        result = _train(job, session, lease, tracker)
        lease.check()
        job.folder.finish(result)
    except BaseException as error:
        # A run whose own lease is lost the tracker leaves to the process that holds it now.
        tracker.stop(outcome(error).stage or KILLED, _tags_of_error(job, error))
        raise
    tracker.finish(result)
    say(f"finished {job.name}  key {job.folder.key}  {summary(result)}")
    return result


def _tags_of_error(job: Job, error: BaseException) -> dict[str, str]:
    """Tags of a stage run that is not finished."""
    if outcome(error).stage != FAILED:
        return {"interrupted": "true"}
    commit = job.folder.latest()
    kept = list(commit.history) if commit is not None else []
    return error_tags(error) | _fallback_tag(job) | _health_tag(job, kept, error)


def _train(job: Job, session: Session, lease: Lease, tracker: Tracker) -> dict[str, Any]:
    """All epochs that are missing, then the finalise step."""
    state, history = _resume(job, session)
    if doubt := slow_precision(job.spec["config"]["numerics"]["precision"], session.device):
        log.warning("%s: %s", job.name, doubt)
    tracker.committed(history)
    reset_peak_memory(session.device)
    while not state.progress.done:
        try:
            _epochs(job, session, state, history, lease, tracker)
        except NonFinite as error:
            if state.progress.autocast_off:
                raise
            state, history = _resume(job, session)
            state.progress.autocast_off = True
            reason = f"{error}; gone on from epoch {len(history)} without mixed precision"
            log.warning("%s: %s", job.name, reason)
            job.folder.write_json("fallback", reason)
    return _finalise(job, state, history)


def _resume(job: Job, session: Session) -> tuple[State, list[dict[str, Any]]]:
    """The state to go on from and the history that led to it."""
    state = job.new_state()
    state.stop = session.stop
    commit = job.folder.latest()
    if commit is None:
        return state, []
    state.load_state_dict(commit.state)
    state.stop = session.stop
    say(f"resumed  {job.name}  key {job.folder.key}  at epoch {state.progress.slot}/{job.epochs}")
    return state, list(commit.history)


def _epochs(
    job: Job,
    session: Session,
    state: State,
    history: list[dict[str, Any]],
    lease: Lease,
    tracker: Tracker,
) -> None:
    """Train, commit, tell; commits come no closer than `commit_every_s`, but always at the end
    and where the process is asked to stop."""
    committed_at, committed = time.monotonic(), len(history)

    def commit() -> None:
        lease.check()
        job.folder.commit(state.state_dict(), history, token=lease.token)
        tracker.committed(history)

    with StageProgress(job.name, job.epochs, state.progress.slot) as progress:
        try:
            for epoch in job.train(state):
                history.append(
                    {
                        "index": epoch.index,
                        "stage": epoch.stage,
                        "step": epoch.step,
                        "time": now_ms(),
                        "metrics": epoch.metrics,
                    }
                )
                progress.epoch(epoch)
                _judge(job, history, final=state.progress.done)
                session.on_epoch(history)
                due = time.monotonic() - committed_at >= session.runtime.commit_every_s
                if due or state.progress.done or session.stop():
                    commit()
                    committed_at, committed = time.monotonic(), len(history)
                if session.stop() and not state.progress.done:
                    raise Interrupted
        except Interrupted:
            if state.progress.step or len(history) > committed:  # raised by session.on_epoch, too
                commit()
            say(f"interrupted  {job.name}  key {job.folder.key}; run the same command to resume")
            raise


def _judge(job: Job, history: list[dict[str, Any]], *, final: bool) -> None:
    """Add the health of the last epoch to its metrics; say what the run has not given before.
    All is read from the history, so that a run that goes on repeats nothing."""
    epochs = [entry["metrics"] for entry in history]
    before = health.fired(epochs)
    epochs[-1] |= health.check(epochs, final=final)
    for warning in health.fired(epochs)[len(before) :]:
        warn(job.name, history[-1]["index"], warning)


def _finalise(job: Job, state: State, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Test the selected weights, once, and put the numbers of the whole run together."""
    weights = state.selected()
    model, values = job.test(weights)
    digest = job.folder.save_tensors(job.weights, weights, {"run_key": job.folder.key})
    if state.best["top1"] is not None:
        values[metrics.BEST_VAL_TOP1] = state.best["top1"]
        values[metrics.BEST_VAL_EPOCH] = float(state.best["epoch"])
    values |= _cost(history, job.bank_seconds())
    values[metrics.PARAMETERS] = float(measures.parameters(model))
    return {
        "time": now_ms(),
        "metrics": values,
        "history": history,
        "weights": {job.weights: digest},
        "tags": _fallback_tag(job) | _health_tag(job, history),
    }


def _fallback_tag(job: Job) -> dict[str, str]:
    """Why mixed precision was given up, if it was."""
    reason = job.folder.read_json("fallback")
    return {tags.FALLBACK: reason} if reason else {}


def _health_tag(
    job: Job, history: list[dict[str, Any]], error: BaseException | None = None
) -> dict[str, str]:
    """The warnings of a run, those of epochs that were not kept included."""
    found = health.fired([entry["metrics"] for entry in history])
    if isinstance(error, NonFinite) or job.folder.read_json("fallback"):
        found = list(dict.fromkeys([*found, health.non_finite.__name__]))
    return {tags.HEALTH: ",".join(found)} if found else {}


def _cost(history: list[dict[str, Any]], bank_seconds: float) -> dict[str, float]:
    """What the run cost, all its segments together, with its share of A-Steps and banks."""
    seconds = {"A": 0.0, "B": 0.0}
    for entry in history:
        seconds[entry["step"]] += entry["metrics"][metrics.EPOCH_SECONDS]
    return {
        metrics.A_STEP_SECONDS: seconds["A"],
        metrics.B_STEP_SECONDS: seconds["B"],
        metrics.BANK_SECONDS: bank_seconds,
        metrics.RUN_SECONDS: seconds["A"] + seconds["B"] + bank_seconds,
    }
