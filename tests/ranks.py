"""Ranks of one run on this machine: forked processes, joined by gloo on loopback."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # takes seconds; else every rank imports it with its first optimiser
import torch.distributed as dist

LIMIT_S = 240.0


def forked(world: int, work: Callable[[int], int]) -> list[int]:
    """Fork a process for each rank, which ends with the exit code that `work(rank)` returns; the
    ids of the processes."""
    sys.stdout.flush()
    found = []
    for rank in range(world):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                code = work(rank)
            except BaseException:  # noqa: BLE001 - printed; the process ends here
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        found.append(process)
    return found


def exit_codes(processes: list[int], limit_s: float = LIMIT_S) -> list[int]:
    """How these processes end; those that do not in time are killed."""
    end, codes = time.monotonic() + limit_s, dict[int, int]()
    while len(codes) < len(processes):
        for process in set(processes) - codes.keys():
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                codes[process] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [codes[process] for process in processes]


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def together(world: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What `work` returns on every rank of a process group."""

    def ranked(rank: int) -> int:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
        torch.save(work(), folder / f"{rank}.pt")
        dist.destroy_process_group()
        return 0

    folder.mkdir()
    assert exit_codes(forked(world, ranked)) == [0] * world
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
