"""The shell around the numerics: configuration, identity, store, tracking, command line.

From Python: `from pipeline import compose, distill`. They are loaded at their first use.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import compose
    from pipeline.train import distill

__all__ = ["compose", "distill"]

# How long an OpenMP thread spins before it sleeps, in libgomp, which torch has on Linux.
# Threads that never spin make a small network as slow as one thread; threads that spin as long as
# they do by default make two runs on the same cores ten times slower (`benchmarks.waiting`).
# Must be set before torch loads.
SPINS = "5000"  # a fraction of a millisecond
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT=SPINS)


def __getattr__(name: str) -> Any:
    if name == "compose":
        from pipeline.config import compose

        return compose
    if name == "distill":
        from pipeline.train import distill

        return distill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
