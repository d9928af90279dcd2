"""Steps that are recorded once an epoch and replayed train as those that are run one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tape import TapedGraphs
from tests.trainers.tiny import World
from trainers import step_graph
from trainers.distillation import ready_outputs
from trainers.distillation.config import DistillConfig
from trainers.finetune import FinetuneState, finetune
from trainers.loop import Epoch, Progress, run_steps
from trainers.methods import METHODS
from trainers.step_index import Index, select

BATCH = ["optim.batch=20", "mix.start=1"]
STAGES = ["method.num_stages=2", "budget.adapt_epochs=4"]
ASIB: dict[str, list[str]] = {
    "CE": [],
    "KD": [],
    "L2": [*STAGES, "method.teacher2_weight_decay_len=2"],
    "L3": STAGES,
    "L4": STAGES,
    "L2_null_by_label": STAGES,
    "L2_null_tokens": STAGES,
    "stack": [],
    "L2 live": [*STAGES, "method.query=live", "data.views=0"],
    "L2 averaged": [*STAGES, "method.ema_weight=0.5", "method.ema_update_every=3"],
    "L2 same": [*STAGES, "method.target_view=same", "method.query_dropout=0.5"],
    "L2 dkd": [*STAGES, "method.use_dkd_with_synergy=true", "method.feat_kd_alpha=0.1"],
    "L2 gate": [*STAGES, "method.kd_sample_gate=true", "method.kd_label_guard=true"],
    "L2 fp16": [*STAGES, "numerics.precision=float16"],
    "L2 sgd": [*STAGES, "optim.name=sgd"],
}
BASELINES = tuple(name for name in METHODS if name not in ("asib", "ce"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record after two steps, make few targets at once, and hold learning rates in tensors (of
    float64, in which the CPU calculates with them)."""
    monkeypatch.setattr(step_graph, "WARM", 2)
    monkeypatch.setattr(step_graph, "WORTH", 2)
    monkeypatch.setattr(ready_outputs, "NUMBERS", 3 * 20 * 64)


def tensors(rates: list[float], device: torch.device) -> Any:
    held = torch.tensor(rates, dtype=torch.float64)
    return lambda at: select(held, at)


def configured(name: str, *overrides: str) -> DistillConfig:
    if name in BASELINES:
        return tiny.baseline(name, *BATCH)
    return tiny.rung(name.partition(" ")[0], *BATCH, *ASIB[name], *overrides)


def trained(config: DistillConfig, world: World, graphs: TapedGraphs | None) -> tiny.Run:
    state = tiny.new_state(config, world)
    state.graphs = graphs
    return tiny.Run(state, list(tiny.epochs_of(config, world, state)))


def of_graphs(epochs: list[Epoch]) -> list[float]:
    return [epoch.metrics["cost/graph_steps"] for epoch in epochs]


def agree(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(name)
    alone = trained(config, world, None)
    monkeypatch.setattr("trainers.distillation.b_step.lr_table", tensors)
    graphs = TapedGraphs()
    recorded = trained(config, world, graphs)
    assert (
        tiny.differences(tiny.without_cost(alone.epochs), tiny.without_cost(recorded.epochs)) == []
    )
    states = [tiny.through_a_file(run.state.state_dict()) for run in (alone, recorded)]
    for state in states:
        del state["stage_student"]
    assert tiny.differences(*states) == []
    assert min(of_graphs(recorded.epochs)) >= 0.5
    assert len(graphs.recorded) == len(recorded.epochs)


@pytest.mark.parametrize("name", ["L2", "crd"])
def test_recorded_steps_train_bit_for_bit_as_steps_one_by_one(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(name, world, monkeypatch)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*ASIB, *BASELINES])
def test_recorded_steps_of_every_method_train_bit_for_bit(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree(name, world, monkeypatch)


@pytest.mark.parametrize("at", [4, *(pytest.param(i, marks=pytest.mark.thorough) for i in (1, 7))])
def test_a_run_of_graphs_that_is_interrupted_resumes_bit_for_bit(
    at: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is recorded, in the middle of the replays, and near the end; without a graph
    it is resumed, too."""
    monkeypatch.setattr("trainers.distillation.b_step.lr_table", tensors)
    config = configured("L2 averaged", "budget.adapt_epochs=2", "budget.student_epochs=2")
    whole = trained(config, world, TapedGraphs())
    for slot in (2, 3):  # an A-Step and a B-Step
        state = tiny.new_state(config, world)
        state.graphs, progress = TapedGraphs(), state.progress
        state.stop = lambda p=progress, s=slot: (p.slot, p.step) == (s, at)
        first = tiny.until_interrupted(lambda s=state: tiny.epochs_of(config, world, s))
        assert (progress.slot, progress.step, len(first)) == (slot, at, slot)
        for graphs in (TapedGraphs(), None):
            again = tiny.new_state(config, world)
            again.graphs = graphs
            again.load_state_dict(tiny.through_a_file(state.state_dict()))
            rest = list(tiny.epochs_of(config, world, again))
            found = tiny.without_cost([*first, *rest])
            assert tiny.differences(found, tiny.without_cost(whole.epochs)) == []
            assert tiny.differences(again.best, whole.state.best) == []


def test_a_teacher_of_graphs_is_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = "teacher.0.recipe.mix.mixup_alpha=1"
    config = tiny.teacher_config(0, "teacher.0.recipe.optim.batch=20", mixed)
    states = [FinetuneState.new(config) for _ in range(2)]
    list(finetune(config, world.data, states[0]))
    monkeypatch.setattr("trainers.finetune.lr_table", tensors)
    states[1].graphs = TapedGraphs()
    epochs = list(finetune(config, world.data, states[1]))
    assert tiny.differences(*(state.state_dict() for state in states)) == []
    assert min(of_graphs(epochs)) >= 0.5


STREAM = (0, "student", "draws", 0)


def means(step: Any, graphs: TapedGraphs | None) -> dict[str, float]:
    found = run_steps(Progress(), 9, step, lambda: False, STREAM, graphs=graphs)
    return {name: value for name, value in found.items() if name == "value"}


def test_a_recording_keeps_what_python_gave_it_and_draws_the_numbers_of_each_step() -> None:
    rows = torch.arange(9.0) ** 3 / 7

    def of_tensors(i: Index) -> dict[str, Tensor]:
        return {"value": select(rows, i) + torch.rand(())}

    assert means(of_tensors, TapedGraphs()) == means(of_tensors, None)

    calls = []

    def of_python(i: Index) -> dict[str, Tensor]:
        calls.append(i)
        return {"value": torch.tensor(0.0) + float(len(calls))}

    assert means(of_python, None) == {"value": 5.0}
    calls.clear()
    assert means(of_python, TapedGraphs()) == {"value": (1 + 2 + 7 * 3) / 9}
    assert [type(i) for i in calls] == [int, int, Tensor]


def test_a_step_that_waits_runs_without_a_graph_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    weight, graphs = torch.zeros(()), TapedGraphs()

    def step(i: Index) -> dict[str, Tensor]:
        weight.add_(1)
        return {"value": weight * float(torch.ones(()))}

    assert means(step, graphs) == {"value": 5.0}
    assert weight == 9  # what was done before it could not be recorded is not done twice
    means(step, graphs)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("runtime.graph: steps of the student run without a graph: ")
    assert "_local_scalar_dense" in line
    assert graphs.recorded == ["student"]
