"""Run a stage: reuse what is finished, resume what was interrupted, else start.

Each epoch is in the store, with its metrics, before the tracker sends it.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import replace

from analysis import tags
from pipeline.cli.console import StageProgress, say, warn
from pipeline.outcome import FAILED, KILLED, error_tags, outcome
from pipeline.ranks import Ranks
from pipeline.session import Session, doubtful_precision
from pipeline.stages.stage import S, Stage
from pipeline.stages.test_split import read_test
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.lease import Holder, Lease, LeaseLost, acquire
from pipeline.storage.run_record import HistoryEntry, RunResult
from pipeline.storage.run_store import if_intact
from pipeline.tracking.background import Tracker, trouble
from pipeline.tracking.replay import replay
from pipeline.tracking.restore import whole_result
from pipeline.tracking.upload_state import UploadState, folder_name
from pipeline.tracking.values import now_ms
from trainers import health, measures, metrics
from trainers.errors import Interrupted
from trainers.loop import Epoch, NonFinite, reset_peak_memory
from trainers.numerics import use_tf32

log = logging.getLogger("pipeline")


def run(stage: Stage[S], session: Session) -> RunResult:
    """The result of a stage: reused from the store, or trained.

    Raises:
        Interrupted: a stop was requested; the same call resumes from the checkpoint.
        LeaseLost: another process continues the run.
        Exception: the run is FAILED in the tracking store, with its traceback.
    """
    ranks = session.ranks
    result = ranks.decided(whole_result, stage.folder, session.target)
    if result is None:
        use_tf32(stage.config.numerics.precision == "tf32")
        stage.prepare()
        with _lease(stage, session) if ranks.leads else nullcontext() as lease:
            # of the process that held the lease before
            result = ranks.decided(stage.folder.whole_result)
            if result is None:
                if lease is None:
                    return _train(stage, session)
                return _run_tracked(stage, session, lease)
    if ranks.leads:
        _reuse(stage, session, result)
    return result


def _reuse(stage: Stage[S], session: Session, result: RunResult) -> None:
    """Print a finished run, and complete what the stores know of it."""
    if not _is_described(stage):
        with _lease(stage, session):
            _describe(stage)
    say(f"reused   {stage.name}  key {stage.folder.key}  {summary(result)}")
    for warning in health.fired([result.metrics]):
        warn(stage.name, None, warning, len(stage.data.val.labels))
    _replay(stage, session)


def summary(result: RunResult) -> str:
    """A finished run's numbers in half a line."""
    m = result.metrics
    parts = [
        f"{label} {100 * m[key]:.2f} %"
        for label, key in (("val", metrics.BEST_VAL_TOP1), ("test", metrics.TEST_TOP1))
        if m.get(key) is not None
    ]
    return "  ".join([*parts, f"{m[metrics.RUN_SECONDS]:.0f} s"])


def _lease(stage: Stage[S], session: Session) -> Lease:
    def waiting(holder: Holder) -> None:
        say(f"waiting  {stage.name}  key {stage.folder.key} is being trained by {holder}")

    runtime = session.runtime
    return acquire(
        stage.folder.path,
        heartbeat_s=runtime.heartbeat_s,
        expiry_s=runtime.expiry_s,
        poll_s=min(1.0, runtime.heartbeat_s),
        on_wait=waiting,
        should_stop=session.stop,
    )


def _replay(stage: Stage[S], session: Session) -> None:
    """Send the finished run to the present experiment where that has none of this key."""
    try:
        replay(stage.folder, session.target, log_model=session.runtime.log_model)
    except Exception as error:  # noqa: BLE001 - reported; the result is in the store
        log.warning(
            "%s; %s is stored: python -m pipeline sync sends it",
            trouble(session.target, error),
            stage.name,
        )


def _run_tracked(stage: Stage[S], session: Session, lease: Lease) -> RunResult:
    if stage.folder.result() is not None:  # without its weights
        stage.folder.reopen()
    _describe(stage)
    runtime = session.runtime
    tracker = Tracker(
        stage.folder,
        session.target,
        retry_s=runtime.retry_s,
        timeout_s=runtime.sync_timeout_s,
        log_model=runtime.log_model,
        lease=lease,
        device=str(session.device),
    )
    record = UploadState.load(stage.folder, session.target)
    session.target.begin()
    record.save(stage.folder, session.target)  # where it is meant to go, should nothing arrive
    tracker.start()
    try:
        with session.ranks.together():
            result = _train(stage, session, lease, tracker)
        lease.check()
        stage.folder.finish(result)
    except BaseException as error:
        try:
            lease.check()
        except LeaseLost:  # whatever else happened: the run belongs to another process
            tracker.abandon()
            raise
        tracker.stop(outcome(error).stage or KILLED, _tags_of_error(stage, error))
        raise
    tracker.finish(result)
    say(f"finished {stage.name}  key {stage.folder.key}  {summary(result)}")
    return result


def _is_described(stage: Stage[S]) -> bool:
    return if_intact(stage.folder.spec) is not None


def _describe(stage: Stage[S]) -> None:
    """Write the description of the run where there is none, or a damaged one."""
    if not _is_described(stage):
        stage.folder.write_spec(replace(stage.spec(), folder=folder_name(stage.folder)))


def _tags_of_error(stage: Stage[S], error: BaseException) -> dict[str, str]:
    """Tags of a stage run that is not finished."""
    if outcome(error).stage != FAILED:
        return {tags.INTERRUPTED: "true"}
    commit = stage.folder.latest()
    kept = list(commit.history) if commit is not None else []
    return error_tags(error) | _fallback_tag(stage) | _health_tag(stage, kept, error)


def _train(
    stage: Stage[S], session: Session, lease: Lease | None = None, tracker: Tracker | None = None
) -> RunResult:
    """The epochs that are missing, then the result. Ranks that do not lead have neither lease nor
    tracker, and do what rank 0 decides."""
    ranks = session.ranks
    state, history = _resume(stage, ranks)
    if doubt := doubtful_precision(stage.config.numerics.precision, session.device):
        log.warning("%s: %s", stage.name, doubt)
    if tracker is not None:
        tracker.committed(history)
    reset_peak_memory(session.device)
    while not state.progress.done:
        try:
            _epochs(stage, session, state, history, lease, tracker)
        except NonFinite as error:
            found = f"{error} at epoch {state.progress.slot + 1}"
            if state.progress.autocast_off or not stage.config.numerics.mixed:
                rates = " or ".join(f"{key} (now {value:g})" for key, value in stage.rates.items())
                raise NonFinite(f"{found}, in float32: try a lower {rates}") from error
            state, history = _resume(stage, ranks)
            state.progress.autocast_off = True
            reason = f"{found}; resumed from epoch {len(history)} without mixed precision"
            log.warning("%s: %s", stage.name, reason)
            ranks.decided(stage.folder.write_json, "fallback", reason)
    return ranks.decided(_finalise, stage, state, history)


def _resume(stage: Stage[S], ranks: Ranks) -> tuple[S, list[HistoryEntry]]:
    """The state to resume from, on every rank, and the history that led to it."""
    state = stage.new_state()
    commit = ranks.decided(stage.folder.latest)
    if commit is None:
        return state, []
    state.load_state_dict(commit.state)
    reached = f"{state.progress.slot}/{stage.epochs}"
    say(f"resumed  {stage.name}  key {stage.folder.key}  at epoch {reached}")
    return state, list(commit.history)


def _epochs(
    stage: Stage[S],
    session: Session,
    state: S,
    history: list[HistoryEntry],
    lease: Lease | None,
    tracker: Tracker | None,
) -> None:
    """Train; rank 0 stores checkpoints and tracks. Checkpoints are at least `commit_every_s` apart,
    but one is always made at the end and where a stop is requested."""
    ranks, committed_at, committed = session.ranks, time.monotonic(), len(history)

    def commit() -> None:
        nonlocal committed_at, committed
        assert lease is not None
        assert tracker is not None
        lease.check()
        stage.folder.commit(state.state_dict(), history, token=lease.token)
        tracker.committed(history)
        committed_at, committed = time.monotonic(), len(history)

    def add(epoch: Epoch) -> None:
        history.append(_entry(epoch))
        progress.epoch(epoch)
        _judge(stage, history, final=state.progress.done)
        session.on_epoch(history)

    def commit_if_due(stop: bool) -> None:
        due = time.monotonic() - committed_at >= session.runtime.commit_every_s
        if due or state.progress.done or stop:
            commit()

    def interrupt() -> None:
        if state.progress.step or len(history) > committed:  # raised by session.on_epoch, too
            commit()
        say(f"interrupted  {stage.name}  key {stage.folder.key}; run the same command to resume")

    with StageProgress(stage.name, stage.epochs, state.progress.slot) as progress:
        try:
            for epoch in stage.train(state):
                ranks.check_same(_digests(epoch))
                ranks.decided(add, epoch)
                stop = session.stop_of_any()
                ranks.decided(commit_if_due, stop)
                if stop and not state.progress.done:
                    raise Interrupted
        except Interrupted:
            ranks.decided(interrupt)
            raise


def _entry(epoch: Epoch) -> HistoryEntry:
    return {
        "index": epoch.index,
        "stage": epoch.stage,
        "step": epoch.step,
        "time": now_ms(),
        "metrics": epoch.metrics,
    }


def _digests(epoch: Epoch) -> dict[str, float]:
    """What is the same on every rank: digests of the weights."""
    found = epoch.metrics.items()
    return {name: value for name, value in found if name.startswith(metrics.STATE)}


def _judge(stage: Stage[S], history: list[HistoryEntry], *, final: bool) -> None:
    """Add the warnings of the last epoch to its metrics; print those that are new in this run.
    All are read from the history, so that a resumed run repeats none."""
    epochs = [entry["metrics"] for entry in history]
    before = health.fired(epochs)
    epochs[-1] |= health.check(epochs, final=final)
    for warning in (one for one in health.fired(epochs[-1:]) if one not in before):
        warn(stage.name, history[-1]["index"], warning, len(stage.data.val.labels))


def _finalise(stage: Stage[S], state: S, history: list[HistoryEntry]) -> RunResult:
    """Test the selected weights, once, and collect the numbers of the whole run."""
    weights, model, config = state.selected(), stage.network(), stage.config
    model.load_state_dict(weights)
    test = read_test(stage.folder, model, stage.data, config.data, config.numerics)
    values = test.metrics
    values[metrics.VAL_IMAGES] = float(len(stage.data.val.labels))
    digest = stage.folder.save_tensors(stage.weights, weights, {"run_key": stage.folder.key})
    if state.best["top1"] is not None:
        values[metrics.BEST_VAL_TOP1] = state.best["top1"]
        values[metrics.BEST_VAL_EPOCH] = float(state.best["epoch"])
        values[metrics.VAL_CHANCE] = measures.chance(stage.data.val.labels)
    values |= health.of_result(values)
    for warning in health.fired([values]):
        warn(stage.name, None, warning, len(stage.data.val.labels))
    values |= _cost(history, stage.bank_seconds)
    values[metrics.PARAMETERS] = float(measures.parameters(model))
    return RunResult(
        key=stage.folder.key,
        time=now_ms(),
        metrics=values,
        history=history,
        weights={stage.weights: digest},
        tags=test.tags | _fallback_tag(stage) | _health_tag(stage, history, values=values),
    )


def _fallback_tag(stage: Stage[S]) -> dict[str, str]:
    """Why mixed precision was switched off, if it was."""
    reason = _fallback(stage)
    return {tags.FALLBACK: reason} if reason else {}


def _fallback(stage: Stage[S]) -> str | None:
    try:
        reason = stage.folder.read_json("fallback")
    except CorruptFile as error:
        return f"for a reason that is lost ({error})"
    return None if reason is None else str(reason)


def _health_tag(
    stage: Stage[S],
    history: list[HistoryEntry],
    error: BaseException | None = None,
    values: dict[str, float] | None = None,
) -> dict[str, str]:
    """The warnings of a run, including those of epochs that were not kept and of its result."""
    found = health.fired([*(entry["metrics"] for entry in history), values or {}])
    if isinstance(error, NonFinite) or _fallback(stage):
        found = list(dict.fromkeys([*found, health.non_finite.__name__]))
    return {tags.HEALTH: ",".join(found)} if found else {}


def _cost(history: list[HistoryEntry], bank_seconds: float) -> dict[str, float]:
    """Seconds of a run over all its segments, with the shares of A-Steps, B-Steps and banks."""
    seconds = {"A": 0.0, "B": 0.0}
    for entry in history:
        seconds[entry["step"]] += entry["metrics"][metrics.EPOCH_SECONDS]
    return {
        metrics.A_STEP_SECONDS: seconds["A"],
        metrics.B_STEP_SECONDS: seconds["B"],
        metrics.BANK_SECONDS: bank_seconds,
        metrics.RUN_SECONDS: seconds["A"] + seconds["B"] + bank_seconds,
    }
