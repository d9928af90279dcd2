"""Named streams of random numbers.

Every draw is a function of (seed, purpose, position), never of what was drawn before. So two
rungs at one seed share initial weights, order, crops and mixes whatever is between them, and a
resumed epoch draws the same numbers as the interrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit number for (seed, purpose…): equal on every machine and Python version."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for the stream; draws on the CPU are the same for every device."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))


def seed_global(number: int) -> None:
    """Seed torch's own streams: the CPU's, and those of GPUs that are in use.

    `torch.manual_seed` does so too, but it formats the whole call stack for every kind of device
    that is not in use, three times on a CPU, and this is called in every step.
    """
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Run a block (such as building weights) on its own stream, then restore the global one."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        seed_global(stream_seed(seed, *purpose))
        yield
