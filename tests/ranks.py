"""Ranks of one run on this machine: processes that gloo joins on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch
import torch._dynamo  # takes seconds; else every rank imports it with its first optimiser
import torch.distributed as dist

LIMIT_S = 240.0
ROOT = Path(__file__).parents[1]


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
    """What `work` returns on every rank of a process group. The ranks are new interpreters: after
    some backward passes of a process autograd refuses to work in its forks."""
    folder.mkdir()
    (folder / "work").write_bytes(cloudpickle.dumps(work))
    command = [sys.executable, "-c", f"from tests.ranks import join; join({world})", str(folder)]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=ROOT) for rank in range(world)]
    assert exit_codes([rank.pid for rank in ranks]) == [0] * world
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def join(world: int) -> None:
    """The work of one rank, whose folder and number are the arguments of this process."""
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    torch.save(cloudpickle.loads((folder / "work").read_bytes())(), folder / f"{rank}.pt")
    dist.destroy_process_group()
