"""Tracker: a thread that sends the checkpointed epochs of a run to the tracking store.

Training never waits for it. While a server is away nothing is lost and nothing is sent twice: the
rest is sent when it is back, at resume, at the end of the run, or by `sync`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.outcome import last_line
from pipeline.storage.lease import Lease, LeaseLost
from pipeline.storage.run_record import HistoryEntry, RunResult
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import REFUSES
from pipeline.tracking.system_metrics import monitor
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.upload import RunUpload

log = logging.getLogger("pipeline")


class Tracker(threading.Thread):
    """Sends one run folder while its stage runs."""

    def __init__(
        self,
        folder: RunFolder,
        target: TrackingTarget,
        *,
        retry_s: float,
        timeout_s: float,
        log_model: bool,
        lease: Lease,
        device: str = "cpu",
    ) -> None:
        super().__init__(name="tracker", daemon=True)
        self.folder, self.target = folder, target
        self.retry_s, self.timeout_s, self.log_model = retry_s, timeout_s, log_model
        self.lease, self.device = lease, device
        self._monitor: Any | None = None
        self._monitors = True  # not before the run exists
        self.upload: RunUpload | None = None
        self.failing_since: float | None = None
        self._history: list[HistoryEntry] = []
        self._closing: Callable[[RunUpload], None] | None = None
        self._wake, self._delivered = threading.Event(), False
        self._give_up = threading.Event()
        self._lost = False  # the lease: the run belongs to another process, which sends the rest

    def committed(self, history: list[HistoryEntry]) -> None:
        """Send the new epochs of this history, which are in the store, when there is time."""
        self._history = list(history)
        self._wake.set()

    def finish(self, result: RunResult) -> bool:
        """Send everything and end the run; False where it did not arrive in time."""
        return self._close(lambda p: p.finish(result, log_model=self.log_model))

    def stop(self, status: str, tags: dict[str, str]) -> bool:
        """End a run that is not finished; False where that did not arrive in time."""
        return self._close(lambda p: p.stop(status, tags))

    def abandon(self) -> None:
        """Send nothing more: the run belongs to another process."""
        self._lost = True
        self._give_up.set()
        self._wake.set()

    def _close(self, closing: Callable[[RunUpload], None]) -> bool:
        self._closing = closing
        self._wake.set()
        requested = time.monotonic()
        while self.is_alive():
            self.join(0.1)
            silent = self.failing_since is not None
            if silent and time.monotonic() - requested > self.timeout_s:
                self._give_up.set()
                self._wake.set()
                break
        if not self._delivered and not self._lost:
            log.warning(
                "not everything of %s has reached the tracking store; nothing is lost: "
                "python -m pipeline sync sends it",
                self.folder.path.name,
            )
        return self._delivered

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._stop_monitor()

    def _run(self) -> None:
        while not self._give_up.is_set():
            self._wake.clear()
            closing, history = self._closing, self._history
            try:
                self._publish(history, closing)
            except LeaseLost:
                self._lost = True
                return
            except Exception as error:  # noqa: BLE001 - reported, tried again, never fatal
                self._failed(error)
                self._wake.wait(self.retry_s if self._closing is None else min(1.0, self.retry_s))
                continue
            self._worked()
            if closing is not None:
                self._delivered = True
                return
            if self._closing is None:
                self._wake.wait()

    def _publish(
        self, history: list[HistoryEntry], closing: Callable[[RunUpload], None] | None
    ) -> None:
        self.lease.check()
        if self.upload is None:
            self.upload = RunUpload(self.folder, self.target, self.lease)
        self.upload.start()
        if self._monitors:
            self._monitors = False
            self._monitor = monitor(self.target, str(self.upload.record.run_id), self.device)
        self.upload.epochs(history)
        if closing is not None:
            self._stop_monitor()
            closing(self.upload)

    def _failed(self, error: Exception) -> None:
        if self.upload is not None:
            self.upload.sure = False
        if self.failing_since is None:
            self.failing_since = time.monotonic()
            log.warning(
                "%s; training continues; its metrics are stored and sent later",
                trouble(self.target, error),
            )

    def _worked(self) -> None:
        if self.failing_since is not None:
            log.warning(
                "the tracking store is back after %.0f s", time.monotonic() - self.failing_since
            )
            self.failing_since = None


def trouble(target: TrackingTarget, error: Exception) -> str:
    """Why a call to the tracking store has failed, in a line: what it refuses and what to give, or
    that it is away."""
    answer = acceptance(target)
    if answer.kind == REFUSES:
        return answer.sentence
    return f"the tracking store cannot be reached ({last_line(error)[:200]})"
