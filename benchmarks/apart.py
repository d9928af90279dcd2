"""Contenders in processes of their own.

In one process they would drive each other's memory and compiled kernels out of its caches: rounds
of few steps then time the refilling, which no user meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

SPAWN = get_context("spawn")
END_S = 30.0

Run = Callable[[], int]  # runs some steps and gives the number of their images


@contextmanager
def apart(makers: dict[str, Callable[[], Run]]) -> Iterator[dict[str, Run]]:
    """The contenders' runs, each in a process that made it by its maker (a picklable callable).

    Raises:
        RuntimeError: A process has ended; its traceback is on stderr.
    """
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        yield {n: stack.enter_context(_served(n, make, threads)) for n, make in makers.items()}


@contextmanager
def _served(name: str, make: Callable[[], Run], threads: int) -> Iterator[Run]:
    here, there = SPAWN.Pipe()
    process: Any = SPAWN.Process(target=_serve, args=(make, threads, there), daemon=True)
    process.start()
    there.close()  # so that the end of the process ends the pipe

    def run() -> int:
        try:
            here.send("run")
            return here.recv()
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"{name}: its process has ended") from None

    try:
        yield run
    finally:
        here.close()
        process.join(END_S)
        if process.is_alive():
            process.kill()


def _serve(make: Callable[[], Run], threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    run = make()
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(run())
