"""Readers of the tracking store: runs, statistics, claims, reports.

From Python: `from analysis import load_runs`. It is loaded at its first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.runs import load_runs

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    if name != "load_runs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from analysis.runs import load_runs

    return load_runs
