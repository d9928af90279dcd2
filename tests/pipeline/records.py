"""Records of runs that tests write into run folders."""

from typing import Any

from pipeline.storage.run_record import RunResult, RunSpec


def spec(**changes: Any) -> RunSpec:
    """The description of a run."""
    values: dict[str, Any] = {name: {} for name in ("identity", "config", "params", "tags")}
    data = {"name": "toy", "digest": "0"}
    return RunSpec(**{"name": "toy", "time": 1_000, "data": data, **values, **changes})


def result(**changes: Any) -> RunResult:
    """The result of a finished run."""
    values: dict[str, Any] = {"metrics": {}, "history": [], "weights": {}, "tags": {}}
    return RunResult(**{"key": "key", "time": 3_000, **values, **changes})
