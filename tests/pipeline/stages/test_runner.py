"""The loop of a stage: what is committed when a listener to its epochs ends it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.ranks import Ranks
from pipeline.stages.runner import _epochs
from pipeline.storage.run_store import Store
from trainers import metrics
from trainers.errors import Interrupted
from trainers.loop import Epoch

METRICS = {metrics.LOSS_TOTAL: 1.0, metrics.IMAGES_PER_SECOND: 100.0, metrics.VAL_TOP1: 0.5}


class State(SimpleNamespace):
    def state_dict(self) -> dict[str, Any]:
        return {"slot": self.progress.slot}


def train(state: State) -> Iterator[Epoch]:
    for index in range(5):
        state.progress.slot = index + 1
        yield Epoch(index, 1, "B", dict(METRICS))


def test_an_epoch_that_a_pruner_has_seen_is_committed_though_none_was_due(tmp_path: Path) -> None:
    def prune(history: list[dict[str, Any]]) -> None:
        if len(history) == 3:
            raise Interrupted

    folder = Store(tmp_path).run("distill", "key")
    seen: list[int] = []
    job = SimpleNamespace(folder=folder, name="x", epochs=5, train=train)
    session = SimpleNamespace(
        on_epoch=prune,
        stop_of_any=lambda: False,
        ranks=Ranks(),
        runtime=SimpleNamespace(commit_every_s=1000),
    )
    state = State(progress=SimpleNamespace(slot=0, step=0, done=False))
    lease = SimpleNamespace(check=lambda: None, token="token")
    tracker = SimpleNamespace(committed=lambda history: seen.append(len(history)))
    with pytest.raises(Interrupted):
        _epochs(job, session, state, [], lease, tracker)  # type: ignore[arg-type]
    commit = folder.latest()
    assert commit is not None
    assert (len(commit.history), commit.state["slot"], seen) == (3, 3, [3])
