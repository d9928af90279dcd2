"""Room in the local store: what the teachers of finished runs know, and what labels alone gave."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from analysis import tags
from pipeline.identity import CONTROL, setting_key
from pipeline.storage.run_record import RunResult, RunSpec
from trainers import metrics

_TEACHERS = {
    metrics.ROOM_BEST_TEACHER: "best teacher",
    metrics.ROOM_AVERAGE: "teachers' average",
    metrics.ROOM_STACK: "stack",
    metrics.SYNERGY_RESTORED: "fusion",
}
_ALONE = "labels alone"


class Rooms:
    """Validation accuracies of finished students, by problem and teachers."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, spec: RunSpec, result: RunResult) -> None:
        """Take over what the run of a student logged."""
        made_by = spec.identity
        for name, value in _last(result).items():
            self._found[_key(made_by)][_TEACHERS[name]].append(value)
        if spec.tags.get(tags.RUNG) == CONTROL and metrics.BEST_VAL_TOP1 in result.metrics:
            alone = result.metrics[metrics.BEST_VAL_TOP1]
            self._found[setting_key(made_by)][_ALONE].append(alone)

    def line(self, made_by: dict[str, Any]) -> str:
        """The line of a plan for a student of this identity; empty: nothing is known yet."""
        means = {name: fmean(values) for name, values in self._found[_key(made_by)].items()}
        if not means:
            return ""
        alone = self._found[setting_key(made_by)][_ALONE]
        listed = [f"{name} {means[name]:.1%}" for name in _TEACHERS.values() if name in means]
        text = f"on validation: {', '.join(listed)}"
        if not alone:
            return f"{text}; labels alone: not known before {CONTROL} has run"
        more = max(means.values()) - fmean(alone)
        return f"{text}; {_ALONE} {fmean(alone):.1%}: room of {100 * more:+.1f} points"


def _key(made_by: dict[str, Any]) -> str:
    return "/".join([setting_key(made_by), *made_by["teachers"]])


def _last(result: RunResult) -> dict[str, float]:
    """The last value of each."""
    found: dict[str, float] = {}
    for entry in result.history:
        found |= {name: value for name, value in entry["metrics"].items() if name in _TEACHERS}
    return found
