"""A lease on a directory: one process at a time, on any host that shares the file system.

The lease is the highest-numbered of the files ``lease.000001``, ``lease.000002``, … in the
directory. A file is created exclusively, and its creator holds the lease. A process that finds
the newest one released, or its holder dead, creates the next number. The new holder deletes the
older files. The newest is never deleted, so a number is used once by a holder.

The holder rewrites its file every few seconds. A waiter calls the holder dead when it has watched
the content stand still for long enough by its own monotonic clock: clocks of other hosts and
times of files play no part. A holder of the waiter's own host and pid namespace whose process is
gone is dead at once.

The file is rewritten in place and never through a rename. A rename would need room on a full
disk, could bring a deleted file back to life, and on NFS makes the name vanish for a moment when
another process of the host has the file open. The content has a fixed length, and only its end
changes, so a torn read is no danger: it is a content that changed, and the token is intact.

A lease cannot stop a holder that was frozen and wakes up after it was replaced. That holder finds
out at its next ``check()``; until then it must write only to names that carry its token.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, NoReturn

from trainers.errors import Interrupted

_NAME = re.compile(r"lease\.(\d{6,})")
_CONTENT_BYTES = 512  # a fixed length: rewriting in place never leaves the file short or empty
_GONE = (errno.ENOENT, errno.ESTALE)  # NFS says ESTALE of a file that another host deleted

_log = logging.getLogger("pipeline")


class LeaseLost(Exception):
    """The lease belongs to another process now: stop writing."""


@dataclass(frozen=True)
class Holder:
    """Holder of a lease, read from its file; empty where the file could not be read."""

    # The order is that of the file: what changes comes last, so that a torn read keeps the token.
    token: str = ""
    host: str = "an unknown host"
    boot_id: str = ""
    pid_namespace: str = ""
    pid: int = 0
    start_time: str = ""
    released: bool = False
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host

    def is_dead(self) -> bool:
        """Whether this process can see that the holder is gone. False where it cannot know."""
        ours = (boot_id(), pid_namespace())
        if "" in ours or (self.boot_id, self.pid_namespace) != ours or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's process: it lives
        start_time = _start_time(self.pid)
        # One is empty where /proc is hidden: then there is nothing to compare.
        return "" not in (start_time, self.start_time) and start_time != self.start_time


_FIELD_TYPES = {name: type(value) for name, value in asdict(Holder()).items()}


def boot_id() -> str:
    """Names the running kernel: equal for two processes of one host, new after a reboot."""
    return _read_proc("sys/kernel/random/boot_id")


def pid_namespace() -> str:
    """Names the namespace in which pids of this process count: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: whether a holder is dead is then judged by its heartbeat
        return ""


def _read_proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text().strip()
    except OSError:  # no Linux, or the process is not ours to see
        return ""


def _start_time(pid: int) -> str:
    """When a process started, in ticks since boot; "dead" for one that only waits to be reaped."""
    # The second field is the command's name, in brackets and with anything inside.
    state_and_on = _read_proc(f"{pid}/stat").rpartition(")")[2].split()
    if not state_and_on:
        return ""
    return "dead" if state_and_on[0] in "ZX" else state_and_on[19]


def _this_process() -> Holder:
    return Holder(
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid_namespace=pid_namespace(),
        pid=os.getpid(),
        start_time=_start_time(os.getpid()),
    )


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode().ljust(_CONTENT_BYTES)


def _decode(content: bytes) -> Holder:
    """The holder in a file; an unknown one where the file is empty, half written or no lease."""
    try:
        fields = json.loads(content)
    except ValueError:
        return Holder()
    if not isinstance(fields, dict):
        return Holder()
    types = {name: type(value) for name, value in fields.items()}
    return Holder(**fields) if types == _FIELD_TYPES else Holder()


def _generations(directory: Path) -> list[int]:
    """The numbers of the lease files in a directory, ascending."""
    matches = (_NAME.fullmatch(name) for name in os.listdir(directory))
    return sorted(int(match[1]) for match in matches if match)


def _path(directory: Path, generation: int) -> Path:
    return directory / f"lease.{generation:06d}"


def _newest(directory: Path) -> tuple[int, bytes | None]:
    """The newest generation and its content: (0, None) for no lease file, (n, None) for one
    that was deleted since it was listed, so that there is a newer one."""
    generation = max(_generations(directory), default=0)
    if generation == 0:
        return 0, None
    try:
        return generation, _path(directory, generation).read_bytes()
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return generation, None


class Watch:
    """What one waiter has seen of the lease on one directory, and how long it stood still.

    Raises ValueError if `expiry_s` leaves a holder no room to miss a beat.
    """

    def __init__(self, *, heartbeat_s: float = 3.0, expiry_s: float = 30.0) -> None:
        if not 0 < 2 * heartbeat_s < expiry_s:
            raise ValueError(
                f"expiry_s must be more than two heartbeats of {heartbeat_s} s: {expiry_s}"
            )
        self.generation = 0
        self.holder = Holder()
        self.is_free = False  # whether the next generation may be claimed
        self._content: bytes | None = None
        self._expiry_s = expiry_s
        # A gap between two looks proves little: we may have been frozen, or a file server that
        # hung may have kept the holder from writing. So a long one counts as two heartbeats.
        self._longest_gap_s = 2 * heartbeat_s
        self._still_s = 0.0
        self._looked_at = time.monotonic()

    def look(self, directory: Path) -> None:
        """Reads the newest lease file. Raises OSError if the directory cannot be read."""
        generation, content = _newest(directory)
        now = time.monotonic()
        if (generation, content) == (self.generation, self._content):
            self._still_s += min(now - self._looked_at, self._longest_gap_s)
        else:
            self._still_s = 0.0
        self._looked_at, self.generation, self._content = now, generation, content
        self.holder = _decode(content or b"")
        self.is_free = self._may_claim()

    def _may_claim(self) -> bool:
        if self.generation == 0:
            return True
        if self._content is None:
            return False
        return self.holder.released or self._still_s >= self._expiry_s or self.holder.is_dead()


class Lease:
    """A lease that this process holds until `release()`; also a context manager.

    Made by `acquire` and `try_acquire`. A daemon thread rewrites the file until then, and stops
    by itself when the lease is lost. No method takes a lock that the code it interrupts could
    hold, so all may be called from a signal handler. A forked child does not release the lease.
    """

    def __init__(self, directory: Path, generation: int, holder: Holder, heartbeat_s: float):
        self.directory = directory
        self.generation = generation
        self._holder = holder
        self._heartbeat_s = heartbeat_s
        self._lost = ""  # why, once it is
        self._released = False
        self._fault: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """A random name for this tenure, 32 hexadecimal digits."""
        return self._holder.token

    def check(self) -> None:
        """Looks at the directory again; returns if the lease is still ours.

        Warns once, in the log, of a heartbeat that could not be written: it is tried again, and
        until another process takes over the lease is ours. Raises LeaseLost if it was taken over,
        its file is gone or it was released, OSError if the directory cannot be read.
        """
        if self._released:
            raise LeaseLost(f"the lease on {self.directory} was released")
        with self._open("rb") as file:
            self._raise_if_lost(file.read())
        fault, self._fault = self._fault, None
        if fault is not None:
            _log.warning("the heartbeat of the lease on %s failed: %s", self.directory, fault)

    def release(self) -> None:
        """Lets the next one in. Does nothing the second time, or if the lease was lost."""
        if self._released or os.getpid() != self._holder.pid:
            return
        self._released = True  # first, for a signal handler that comes here in the middle
        self._stop.set()
        self._thread.join()  # there must be one writer: a late beat would undo the release
        try:
            self._rewrite(released=True)
        except LeaseLost:
            pass  # another process releases it
        except OSError as error:  # not worth failing for: waiters see it expire
            _log.warning("the lease on %s could not be released: %s", self.directory, error)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            try:
                self._rewrite(released=False)
            except LeaseLost:
                return  # check() raises it in the caller
            except OSError as error:
                self._fault = error

    def _rewrite(self, *, released: bool) -> None:
        """Writes the next beat. Raises LeaseLost, or OSError if that failed."""
        self._holder = replace(self._holder, released=released, beat=self._holder.beat + 1)
        # "r+b" creates nothing, so a file that the next holder deleted stays deleted; and what
        # we write to is what we have just read our token from, whatever its name means by now.
        with self._open("r+b") as file:
            self._raise_if_lost(file.read())
            file.seek(0)
            file.write(_encode(self._holder))

    @contextmanager
    def _open(self, mode: str) -> Iterator[IO[bytes]]:
        """Our own lease file. Raises LeaseLost if it is gone, now or before the block ends."""
        try:
            with open(_path(self.directory, self.generation), mode) as file:
                yield file
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._raise_lost("its file was deleted")

    def _raise_if_lost(self, content: bytes) -> None:
        """Judges by the content of our own file, and by the other files in the directory."""
        if self._lost:
            self._raise_lost(self._lost)
        if not content.startswith(f'{{"token": "{self.token}"'.encode()):
            self._raise_lost(f"its file belongs to {_decode(content)}")
        newest = max(_generations(self.directory), default=0)
        if newest > self.generation:
            self._raise_lost(f"generation {newest} follows our {self.generation}")

    def _raise_lost(self, why: str) -> NoReturn:
        self._lost = why  # for good, whatever the directory shows later
        raise LeaseLost(f"the lease on {self.directory} was lost: {why}")


def try_acquire(
    directory: Path, *, heartbeat_s: float = 3.0, watch: Watch | None = None
) -> Lease | None:
    """The lease on `directory` (made if absent) if it is free at this look, else None.

    One look sees a lease that is released or whose process is gone from this host. To see one
    expire, hand in the same `watch` at every look at this directory; it also has the holder.
    Raises OSError if the directory cannot be read or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    watch = watch or Watch(heartbeat_s=heartbeat_s, expiry_s=10 * heartbeat_s)
    watch.look(directory)
    if not watch.is_free:
        return None
    return _claim(directory, watch.generation + 1, heartbeat_s)


def acquire(
    directory: Path,
    *,
    heartbeat_s: float = 3.0,
    expiry_s: float = 30.0,
    poll_s: float = 1.0,
    on_wait: Callable[[Holder], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Lease:
    """The lease on `directory`, waiting for it: use it in a `with` statement.

    `on_wait` is called once, with who holds the lease, when we begin to wait. All processes must
    agree roughly on `heartbeat_s` and `expiry_s`. Raises Interrupted if `should_stop` becomes
    true while waiting, ValueError for an expiry within two heartbeats, OSError if the directory
    cannot be read or written.
    """
    watch = Watch(heartbeat_s=heartbeat_s, expiry_s=expiry_s)
    reported = False
    while (lease := try_acquire(directory, heartbeat_s=heartbeat_s, watch=watch)) is None:
        # It was free if we lost a race: then the next look finds the holder.
        if on_wait is not None and not reported and not watch.is_free:
            reported = True
            on_wait(watch.holder)
        if should_stop():
            raise Interrupted(f"stopped while {watch.holder} held the lease on {directory}")
        time.sleep(poll_s)
    return lease


def _claim(directory: Path, generation: int, heartbeat_s: float) -> Lease | None:
    """Creates the lease file of a generation; None if another process was first."""
    path, holder = _path(directory, generation), _this_process()
    try:
        with open(path, "xb") as file:
            file.write(_encode(holder))
    except FileExistsError:
        return None
    generations = _generations(directory)
    if generations[-1:] != [generation]:
        # We were slow: the number was used and deleted already, and a newer one holds. (Our
        # create made NFS forget its cached listing, so this one is new.)
        path.unlink(missing_ok=True)
        return None
    for older in generations[:-1]:
        _path(directory, older).unlink(missing_ok=True)
    return Lease(directory, generation, holder, heartbeat_s)
