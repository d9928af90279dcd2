"""A fault at the n-th file operation of a process, below one folder.

It is a kill, a torn write, an error, a jump of the clock, or a process that is frozen there until
others have finished its work. Operations are seen by Python's audit hooks (open, rename, remove,
mkdir), and syncs by a wrapper.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILL, TORN, CLOCK, FROZEN = "kill", "torn", "clock", "frozen"
ERRORS = ("ENOSPC", "EIO", "EMFILE", "EROFS")
KINDS = (KILL, TORN, *ERRORS, CLOCK, FROZEN)
LASTING = ("ENOSPC", "EROFS")  # what does not pass by itself while the process runs
_JUMP_S = 40 * 86_400.0  # back at every other point
_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class Fault:
    """One fault in this process; `seen` counts the operations that it could be at."""

    def __init__(self, folder: Path, kind: str, point: int) -> None:
        self.folder, self.kind, self.point = str(folder), kind, point
        self.seen = 0
        self._lock = threading.Lock()

    def install(self) -> None:
        sys.addaudithook(self._audit)
        sync = os.fsync

        def fsync(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            self._operation(f"/proc/self/fd/{number}", True, lambda: _tear(number))
            sync(number)

        os.fsync = fsync

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            self._operation(os.fspath(arguments[0]), bool(flags & (os.O_WRONLY | os.O_RDWR)))
        elif event in _WRITES and isinstance(arguments[0], str | os.PathLike):
            self._operation(os.fspath(arguments[0]), True)

    def _operation(
        self, path: str | bytes, writes: bool, tear: Callable[[], None] | None = None
    ) -> None:
        text = os.fsdecode(path)
        here = os.path.realpath(text) if text.startswith("/proc/") else os.path.abspath(text)
        if not here.startswith(self.folder + os.sep):
            return
        syncs = tear is not None
        if (self.kind == TORN and not syncs) or (syncs and self.kind in (KILL, CLOCK, FROZEN)):
            return
        if self.kind in LASTING and not writes:
            return
        with self._lock:
            self.seen += 1
            now = self.seen
        if now < self.point:
            return
        if self.kind in (KILL, TORN):
            if tear is not None:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == FROZEN and now == self.point:
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.kind == CLOCK and now == self.point:
            self._jump(_JUMP_S if self.point % 2 else -_JUMP_S)
        if self.kind in (CLOCK, FROZEN):
            return
        if now == self.point or self.kind in LASTING:
            number = getattr(errno, self.kind)
            raise OSError(number, os.strerror(number), here)

    def _jump(self, seconds: float) -> None:
        """Set the clock of this process, as another time server would."""
        seconds_now, nanoseconds_now = time.time, time.time_ns
        time.time = lambda: seconds_now() + seconds
        time.time_ns = lambda: nanoseconds_now() + int(seconds * 1e9)


def _tear(descriptor: int) -> None:
    """Half of a file has reached the disk."""
    try:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    except OSError:
        return  # a folder, or opened for reading
