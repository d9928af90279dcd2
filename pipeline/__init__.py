"""The shell around the numerics: configuration, identity, store, tracking, command line.

From Python: `from pipeline import compose, distill`. They are loaded at their first use.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import compose
    from pipeline.train import distill

__all__ = ["compose", "distill"]

# OpenMP threads that spin while they wait make two runs on one machine twenty times slower;
# threads that sleep cost a run that is alone next to nothing. Must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name == "compose":
        from pipeline.config import compose

        return compose
    if name == "distill":
        from pipeline.train import distill

        return distill
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
