"""The lease, with real processes that are killed and frozen."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.storage import lease
from pipeline.storage.lease import Holder, Lease, LeaseLost, Watch, acquire, try_acquire
from trainers.errors import Interrupted

FORK = multiprocessing.get_context("fork")
ELSEWHERE = Holder("ab" * 16, "elsewhere", "another boot", "pid:[1]", 12345, "678")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def put(directory: Path, generation: int, holder: Holder | bytes) -> Path:
    path = directory / f"lease.{generation:06d}"
    path.write_bytes(holder if isinstance(holder, bytes) else lease._encode(holder))
    return path


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def hold(directory: Path, pipe: Connection, host: str) -> None:
    """Holds the lease; then, for every message, says whether it still does."""
    if host:
        lease.boot_id = lambda: host
    with acquire(directory, heartbeat_s=0.05, expiry_s=30) as held:
        pipe.send(held.token)
        while pipe.recv():
            try:
                held.check()
                pipe.send("ours")
            except LeaseLost:
                pipe.send("lost")
    pipe.send("released")


@contextmanager
def holder(directory: Path, host: str = "") -> Iterator[SimpleNamespace]:
    """A child process that holds the lease, if asked one that seems to be of another host."""
    pipe, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(directory, theirs, host))
    process.start()
    try:
        yield SimpleNamespace(pid=process.pid, process=process, pipe=pipe, token=pipe.recv())
    finally:
        process.kill()
        process.join()


def work(directory: Path, tenures: int) -> None:
    for _ in range(tenures):
        with acquire(directory, heartbeat_s=0.5, poll_s=0.001) as held:
            (directory / "inside").touch(exist_ok=False)
            count = int((directory / "count").read_text())
            time.sleep(0.002)
            held.check()
            (directory / "count").write_text(str(count + 1))
            (directory / "inside").unlink()


def test_racing_processes_hold_it_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    workers = [FORK.Process(target=work, args=(tmp_path, 15)) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 5
    assert (tmp_path / "count").read_text() == "75"
    assert names(tmp_path) == ["count", "lease.000075"]


def test_release_lets_the_next_in_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "by" / "it"
    first = acquire(directory)
    assert len(first.token) == 32
    first.check()
    assert try_acquire(directory) is None
    first.release()
    first.release()
    assert names(directory) == ["lease.000001"]
    with pytest.raises(LeaseLost, match="released"):
        first.check()
    with acquire(directory) as second:
        assert second.token != first.token
        assert names(directory) == ["lease.000002"]
        first.release()
        second.check()
    assert json.loads((directory / "lease.000002").read_bytes())["released"] is True


def test_it_is_released_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), acquire(tmp_path):
        raise KeyError
    assert try_acquire(tmp_path) is not None


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_holder_of_this_host_is_replaced_at_once(tmp_path: Path, reaped: bool) -> None:
    with holder(tmp_path) as other:
        assert try_acquire(tmp_path) is None
        os.kill(other.pid, signal.SIGKILL)
        if reaped:
            other.process.join()
        began = time.monotonic()
        with acquire(tmp_path, poll_s=0.01) as ours:  # the expiry is 30 s
            ours.check()
        assert time.monotonic() - began < 10


def test_a_pid_that_was_given_to_another_process_is_dead(tmp_path: Path) -> None:
    ours = lease._this_process()
    put(tmp_path, 7, ours)
    assert not ours.is_dead()
    assert try_acquire(tmp_path) is None
    put(tmp_path, 7, lease.replace(ours, start_time="1"))
    assert try_acquire(tmp_path) is not None


def test_a_gone_pid_of_another_host_or_container_may_be_alive() -> None:
    ours = lease._this_process()
    gone = lease.replace(ours, pid=2**22 + 1)  # above the highest that Linux gives
    assert gone.is_dead()
    assert not lease.replace(gone, boot_id="another").is_dead()
    assert not lease.replace(gone, pid_namespace="another").is_dead()
    assert not Holder().is_dead()


@pytest.mark.parametrize("age_s", [-1e6, 0, 1e6])
def test_a_holder_elsewhere_expires_by_our_clock_alone(tmp_path: Path, age_s: float) -> None:
    path = put(tmp_path, 3, ELSEWHERE)
    os.utime(path, (time.time() - age_s,) * 2)
    waits: list[Holder] = []
    began = time.monotonic()
    with acquire(
        tmp_path, heartbeat_s=0.1, expiry_s=0.4, poll_s=0.01, on_wait=waits.append
    ) as ours:
        assert 0.4 <= time.monotonic() - began < 5
        assert names(tmp_path) == ["lease.000004"]
        ours.check()
    assert waits == [ELSEWHERE]
    assert str(waits[0]) == "process 12345 on elsewhere"


def test_a_holder_elsewhere_that_beats_does_not_expire(tmp_path: Path) -> None:
    with holder(tmp_path, host="elsewhere") as other:
        watch = Watch(heartbeat_s=0.2, expiry_s=0.8)
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            assert try_acquire(tmp_path, watch=watch) is None
            assert watch.holder.token == other.token
            time.sleep(0.02)
        assert watch.holder.beat > 3
        other.pipe.send(True)
        assert other.pipe.recv() == "ours"


def test_a_frozen_holder_loses_and_does_no_harm_when_it_wakes(tmp_path: Path) -> None:
    with holder(tmp_path, host="elsewhere") as other:
        os.kill(other.pid, signal.SIGSTOP)
        with acquire(tmp_path, heartbeat_s=0.1, expiry_s=0.4, poll_s=0.01) as ours:
            os.kill(other.pid, signal.SIGCONT)
            other.pipe.send(True)
            assert other.pipe.recv() == "lost"
            time.sleep(0.2)  # time for the beats that it must not make
            other.pipe.send(False)
            assert other.pipe.recv() == "released"
            ours.check()
            assert names(tmp_path) == ["lease.000002"]
            assert try_acquire(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b'{"token": "abab', b"[]", b'{"released": true}', b"\xff"]
)
def test_a_file_that_cannot_be_read_starts_the_clock(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, 1, content)
    waits: list[Holder] = []
    began = time.monotonic()
    with acquire(tmp_path, heartbeat_s=0.1, expiry_s=0.3, poll_s=0.01, on_wait=waits.append):
        assert time.monotonic() - began >= 0.3
    assert waits == [Holder()]


def test_of_two_that_see_it_expire_one_wins(tmp_path: Path) -> None:
    put(tmp_path, 1, ELSEWHERE)
    watches = [Watch(heartbeat_s=0.01, expiry_s=0.05) for _ in range(8)]
    while not all(watch.is_free for watch in watches):
        time.sleep(0.01)
        for watch in watches:
            watch.look(tmp_path)
    barrier = threading.Barrier(len(watches))
    won: list[Lease] = []

    def claim(watch: Watch) -> None:
        barrier.wait()
        if ours := lease._claim(tmp_path, watch.generation + 1, heartbeat_s=3.0):
            won.append(ours)

    threads = [threading.Thread(target=claim, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].check()
    assert names(tmp_path) == ["lease.000002"]


def test_a_slow_claimant_cannot_use_a_number_again(tmp_path: Path) -> None:
    with acquire(tmp_path):
        pass
    with acquire(tmp_path):
        pass
    with acquire(tmp_path) as third:
        assert lease._claim(tmp_path, 2, heartbeat_s=3.0) is None
        assert names(tmp_path) == ["lease.000003"]
        third.check()


def test_a_gap_between_two_looks_proves_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(lease.time, "monotonic", lambda: now)
    put(tmp_path, 1, ELSEWHERE)
    watch = Watch(heartbeat_s=3, expiry_s=30)
    watch.look(tmp_path)
    now = 10_000.0  # we were frozen, or the file server was, and the holder with it
    watch.look(tmp_path)
    assert not watch.is_free
    put(tmp_path, 1, lease.replace(ELSEWHERE, beat=1))
    for _ in range(10):
        watch.look(tmp_path)
        assert not watch.is_free
        now += 3
    watch.look(tmp_path)
    assert watch.is_free


def test_an_expiry_within_two_heartbeats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than two heartbeats"):
        acquire(tmp_path, heartbeat_s=3, expiry_s=6)


def test_the_wait_can_be_stopped(tmp_path: Path) -> None:
    put(tmp_path, 1, ELSEWHERE)
    answers = iter([False, False, True])
    with pytest.raises(Interrupted, match="process 12345 on elsewhere"):
        acquire(tmp_path, poll_s=0.01, should_stop=lambda: next(answers))
    assert names(tmp_path) == ["lease.000001"]


def take_over(directory: Path) -> None:
    put(directory, 2, ELSEWHERE)


def overwrite(directory: Path) -> None:
    put(directory, 1, ELSEWHERE)


def delete(directory: Path) -> None:
    (directory / "lease.000001").unlink()


@pytest.mark.parametrize("harm", [take_over, overwrite, delete])
def test_check_and_the_heartbeat_see_that_it_is_lost(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    held = acquire(tmp_path, heartbeat_s=0.02)
    beating = acquire(tmp_path / "beating", heartbeat_s=0.02)
    held.check()
    harm(tmp_path)
    with pytest.raises(LeaseLost):
        held.check()
    wait_until(lambda: not held._thread.is_alive())
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if "." in name}
    (tmp_path / "lease.000002").unlink(missing_ok=True)
    with pytest.raises(LeaseLost):  # for good
        held.check()
    held.release()
    for name in set(names(tmp_path)) & set(before):
        assert (tmp_path / name).read_bytes() == before[name]
    beating.check()
    beating.release()


def test_a_heartbeat_that_fails_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Holder) -> bytes:
        raise OSError(errno.EIO, "the disk says no")

    with acquire(tmp_path, heartbeat_s=0.02) as held:
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_encode", fail)
            wait_until(lambda: held._fault is not None)
            held.check()
        assert "the disk says no" in caplog.text
        path = tmp_path / "lease.000001"
        beat = lease._decode(path.read_bytes()).beat
        wait_until(lambda: lease._decode(path.read_bytes()).beat > beat)
        held.check()
        caplog.clear()
        held.check()
        assert not caplog.records


def test_a_forked_child_does_not_release_it(tmp_path: Path) -> None:
    with acquire(tmp_path) as held:
        child = FORK.Process(target=held.release)
        child.start()
        child.join()
        assert child.exitcode == 0
        held.check()
        assert try_acquire(tmp_path) is None


def check_for_ever(held: Lease) -> None:
    while True:
        held.check()


def test_a_signal_handler_may_call_anything(tmp_path: Path) -> None:
    held = acquire(tmp_path, heartbeat_s=0.001, expiry_s=30)
    calls = 0

    def on_alarm(*_: object) -> None:
        nonlocal calls
        calls += 1
        held.check() if calls < 100 else held.release()

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        with pytest.raises(LeaseLost, match="released"):
            check_for_ever(held)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    wait_until(lambda: try_acquire(tmp_path) is not None)
