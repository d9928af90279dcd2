"""Which of many folders no process works on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.storage.lease import Lease, Watch, try_acquire

T = TypeVar("T")


def free_leases(
    folders: Sequence[tuple[T, Path]],
    *,
    heartbeat_s: float,
    expiry_s: float,
    should_stop: Callable[[], bool],
    on_held: Callable[[T], None] = lambda item: None,
) -> Iterator[tuple[T, Lease]]:
    """The items whose folders are free, with their leases. A lease of another host is watched until
    it moves (`on_held`) or has expired, all of them together."""
    waiting = list[tuple[T, Path, Watch]]()
    for item, folder in folders:
        watch = Watch(heartbeat_s=heartbeat_s, expiry_s=expiry_s)
        if lease := try_acquire(folder, watch=watch):
            yield item, lease
        else:
            waiting.append((item, folder, watch))
    end = time.monotonic() + expiry_s + 2 * heartbeat_s
    first = {id(watch): (watch.generation, watch.holder.beat) for _, _, watch in waiting}
    while waiting and time.monotonic() < end and not should_stop():
        time.sleep(min(1.0, heartbeat_s))
        for one in list(waiting):
            item, folder, watch = one
            if lease := try_acquire(folder, watch=watch):
                waiting.remove(one)
                yield item, lease
            elif (watch.generation, watch.holder.beat) != first[id(watch)]:
                waiting.remove(one)
                on_held(item)
