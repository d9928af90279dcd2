"""The benchmark of GPUs: its rungs are those of the ladder, and its checks hold on a GPU."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import at_once, checks, loops
from benchmarks.gpu.cases import (
    CLASSES,
    NAMES,
    RUNGS,
    TEACHER,
    Scale,
    config,
    random_data,
    random_teachers,
    small_work,
    steps_of,
)
from pipeline.config import compose
from pipeline.identity import distill_config
from trainers.numerics import Numerics, use_repeatable_kernels

CPU = torch.device("cpu")
SMALL = Scale("resnet8", "resnet8", images=32, batch=16, views=1, epochs=8)
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("rung", RUNGS)
def test_rungs_are_those_of_the_ladder(rung: str) -> None:
    overrides = ["bench=cifar100_small", f"cfg={rung}", "method.enable_kd_after_syn_acc=0"]
    composed = distill_config(compose(overrides))
    ours = config(rung, Scale())
    assert ours.method == composed.method
    assert (ours.mix, ours.data.mean, ours.data.std, ours.data.crop_pad) == (
        composed.mix,
        composed.data.mean,
        composed.data.std,
        composed.data.crop_pad,
    )


@pytest.mark.parametrize("name", ["CE", "self", "L3", "L2 unlabelled", TEACHER])
def test_every_step_of_a_case_trains(name: str) -> None:
    for step in steps_of(name):
        ready = small_work(name, step, SMALL, CPU)
        before = [p.clone() for p in ready.learning()]
        ready.epoch()
        assert any(not torch.equal(a, b) for a, b in zip(before, ready.learning(), strict=True))


@pytest.mark.parametrize("name", ["L2", TEACHER])
def test_a_run_that_is_resumed_is_the_whole_run(name: str) -> None:
    data = random_data(SMALL, CPU, val=CLASSES)
    settings, teachers = checks.settings_of(name, SMALL), random_teachers(SMALL, data)
    _, whole = checks.run(settings, data, teachers)
    _, resumed = checks.run(settings, data, teachers, stop_at=(1, 1))
    other = checks.settings_of(name, replace(SMALL, epochs=4))
    assert whole == resumed
    assert whole != checks.run(other, data, teachers)[1]


@pytest.mark.parametrize("name", loops.STEPS)
def test_loops_of_others_train_on_every_image_once(name: str) -> None:
    data = random_data(SMALL, CPU, val=CLASSES)
    (teacher,) = random_teachers(SMALL, data, 1)
    before = torch.random.get_rng_state()
    epoch = loops.epoch(name, SMALL, data.train, teacher.model, workers=0)
    assert epoch() == SMALL.images
    assert not torch.equal(before, torch.random.get_rng_state())  # order, crops and flips are drawn
    for weight in teacher.model.parameters():
        weight.fill_(torch.nan)
    if name == "like torchdistill":
        with pytest.raises(ArithmeticError, match="not finite"):
            epoch()


@pytest.mark.thorough
def test_runs_at_once_have_the_bits_of_one_alone() -> None:
    found = at_once.compare("KD", CPU, runs=2, scale=SMALL)
    assert (found["same as alone"], found["students"]) == (True, 2)
    assert found["speed / one after another"] > 0


def test_the_most_important_is_done_first_and_every_case_is_checked() -> None:
    listed = [name for name, _ in command.tasks(None, None)]
    assert [name for part, name in listed[:5]] == list(command.MAIN)
    assert {name for part, name in listed if part == "checks"} == {*NAMES}
    assert ("float32", "KD B graph") in listed
    assert ("float32", "like MDistiller") in listed
    assert ("bfloat16", "like MDistiller") not in listed
    chosen = [name for name, _ in command.tasks(["at"], "speeds")]
    assert ("float32", "at B") in chosen
    assert not [part for part, _ in chosen if part == "checks"]


def test_a_failed_check_stops_no_other_and_what_there_is_no_time_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]

    def figures() -> dict[str, object]:
        clock[0] += 45
        return {"same twice": True, "waits B": 0.0}

    def broken() -> dict[str, object]:
        raise RuntimeError("no kernel")

    def tasks(*chosen: object) -> Iterator[command.Task]:
        for name, one in {"CE": figures, "KD": broken, "L2": figures, "L3": figures}.items():
            yield ("checks", name), one

    monkeypatch.setattr(command, "tasks", tasks)
    monkeypatch.setattr(command.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(command, "use_repeatable_kernels", lambda: None)
    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--json", str(file), "--minutes", "1"])
    with pytest.raises(SystemExit, match="failed: checks of KD"):
        command.main()
    found = json.loads(file.read_text())
    assert found["checks"]["KD"] == {"error": "RuntimeError('no kernel')"}
    assert found["checks"]["L2"]["same twice"] is True
    assert found["left out"] == ["checks of L3"]
    shown = capsys.readouterr()
    assert "Left out, as the minutes were over: checks of L3." in shown.out
    assert "no kernel" in shown.err


@gpu
@needs_gpu
@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_and_runs_are_repeatable(name: str) -> None:
    use_repeatable_kernels()
    row = checks.report(name, Numerics(), torch.device("cuda"))
    assert all(row[f"waits {step}"] < 0.5 for step in steps_of(name)), row
    assert row["relative to CPU"] < 1e-3
    assert all(same for check, same in row.items() if check.startswith("same")), row
    of_graphs = [step for step in steps_of(name) if (name, step) != ("L2 folds", "A")]
    assert all(row[f"launches of a graph {step}"] <= 5 for step in of_graphs), row
