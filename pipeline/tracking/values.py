"""Values in the form that MLflow takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

DATASET_DIGEST_LENGTH = 36  # the longest that MLflow stores


def points_of(values: dict[str, float], step: int, time_ms: int) -> list[Any]:
    """Metrics of one step."""
    from mlflow.entities import Metric

    return [Metric(key, float(value), time_ms, step) for key, value in values.items()]


def log_data(client: Any, run_id: str, data: dict[str, str], context: str) -> None:
    """The data set (name, digest) as an input of a run; `context` is its use."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name, digest = data["name"], data["digest"][:DATASET_DIGEST_LENGTH]
    found = Dataset(name, digest, source_type="code", source=json.dumps({"data.name": name}))
    client.log_inputs(run_id, [DatasetInput(found, [InputTag("mlflow.data.context", context)])])


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


def flat(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values of nested dicts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
