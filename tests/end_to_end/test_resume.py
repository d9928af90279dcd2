"""A run killed anywhere resumes with the same command; its weights equal those of a run that was
never killed, bit for bit."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import load_history, load_runs
from tests.end_to_end import command
from trainers import metrics


@pytest.mark.parametrize(
    ("after", "delay"),
    [
        pytest.param("1/8 1A", 0.0, marks=pytest.mark.thorough),  # in the A-Step
        pytest.param("2/8 1A", 0.05, marks=pytest.mark.thorough),  # from an A-Step to a B-Step
        pytest.param("4/8 1B", 0.02, marks=pytest.mark.thorough),  # from a stage to the next
        pytest.param("6/8 2A", 0.1, marks=pytest.mark.thorough),
        ("8/8 2B", 0.0),  # in the finalise step
    ],
)
def test_a_killed_student_resumes_bit_for_bit(
    finished: Path, with_teachers: Path, after: str, delay: float
) -> None:
    code, _ = command.interrupt(
        "distill",
        *command.L3,
        cwd=with_teachers,
        after=after,
        delay=delay,
        number=signal.SIGKILL,
    )
    assert code in (-signal.SIGKILL, 0)
    command.run("distill", *command.L3, cwd=with_teachers)
    _same(finished, with_teachers)


@pytest.mark.thorough
def test_killed_at_random_moments_from_a_clean_start(finished: Path, clean: Path) -> None:
    """Teachers, banks and student, each killed at a random moment."""
    draw = random.Random(str(clean))
    anchors = [
        "finetune-resnet20-digits_all-s0  1/2",
        "finished finetune",
        "finished view bank",
        "A ",
    ]
    for after in anchors:
        command.interrupt(
            "distill",
            *command.L3,
            cwd=clean,
            after=after,
            delay=draw.uniform(0, 0.4),
            number=signal.SIGKILL,
        )
    command.run("distill", *command.L3, cwd=clean)
    _same(finished, clean)


@pytest.mark.thorough
def test_a_student_in_float16_resumes_with_its_scale(schema: Path, tmp_path: Path) -> None:
    """The losses of `kd_ls` are so large that its first step is skipped."""
    small = ("data.image_size=8", "data.crop_pad=1", "student.model=resnet8", "numerics=float16")
    tiny = [text for text in command.TINY if not text.startswith("bench.")]
    nets = [f"teacher.{k}.model=resnet8" for k in (0, 1)]
    given, folders = ("method=kd_ls", *tiny, *small, *nets), []
    for name in ("whole", "killed"):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        shutil.copy(schema, folders[-1])
    command.run("distill", *given, cwd=folders[0])
    code, _ = command.interrupt(
        "distill", *given, cwd=folders[1], after="2/4 1B", delay=0.0, number=signal.SIGKILL
    )
    assert code == -signal.SIGKILL
    command.run("distill", *given, cwd=folders[1])
    _same(*folders)
    skipped = [
        [entry["metrics"][metrics.SKIPPED] for entry in result["history"]]
        for folder in folders
        for result in command.results(folder).values()
    ]
    assert skipped[0] == skipped[1]
    assert skipped[0][0] > 0


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.thorough),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.thorough),
        signal.SIGUSR2,
    ],
)
def test_signal_commits_at_the_next_step_and_exits_75(
    finished: Path, with_teachers: Path, number: signal.Signals
) -> None:
    code, output = command.interrupt(
        "distill", *command.L3, cwd=with_teachers, after="3/8 1B", delay=0.01, number=number
    )
    assert code == 75, output
    assert "run the same command to resume" in output
    output = command.run("distill", *command.L3, cwd=with_teachers)
    assert "resumed" in output
    _same(finished, with_teachers)


@pytest.mark.thorough
def test_a_run_that_maps_its_images_and_banks_is_the_same_also_when_it_is_killed(
    finished: Path, with_teachers: Path
) -> None:
    words = (*command.L3, "runtime.device_budget=1")
    command.interrupt(
        "distill", *words, cwd=with_teachers, after="5/8 2A", delay=0.0, number=signal.SIGKILL
    )
    output = command.run("distill", *words, cwd=with_teachers)
    assert "view banks do not fit in runtime.device_budget" in output
    _same(finished, with_teachers)
    assert not list((with_teachers / "store" / "tables").iterdir())  # files without a name


@pytest.mark.thorough
def test_corrupt_newest_commit_falls_back_to_the_one_before(
    finished: Path, with_teachers: Path
) -> None:
    command.interrupt(
        "distill",
        *command.L3,
        cwd=with_teachers,
        after="5/8 2A",
        delay=0.0,
        number=signal.SIGKILL,
    )
    commits = sorted((with_teachers / "store" / "runs" / "distill").glob("*/commit-*.pt"))
    damaged = bytearray(commits[-1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    commits[-1].write_bytes(damaged)
    output = command.run("distill", *command.L3, cwd=with_teachers)
    assert "the checkpoint before it is used" in output
    _same(finished, with_teachers)


@pytest.mark.thorough
def test_killed_while_a_bank_is_written(finished: Path, with_teachers: Path) -> None:
    """An interrupted bank (here: without its list and its validation rows) is completed."""
    banks = with_teachers / "store" / "runs" / "bank"
    for folder in banks.iterdir():
        (folder / "bank.json").unlink()
        next(folder.glob("val.*")).unlink()
    output = command.run("distill", *command.L3, cwd=with_teachers)
    assert output.count("finished view bank") == 2
    _same(finished, with_teachers)


def _same(one: Path, other: Path) -> None:
    assert command.student_digest(one) == command.student_digest(other)
    (first,), (second,) = command.results(one).values(), command.results(other).values()
    assert command.losses(first) == command.losses(second)


@pytest.mark.thorough
def test_a_warning_is_printed_once_and_tagged_at_the_end(with_teachers: Path) -> None:
    """A part that is broken on purpose: the teachers' adapters stay random projections."""
    options = (*command.L3, "method.adapt=none")
    code, first = command.interrupt(
        "distill", *options, cwd=with_teachers, after="4/8 1B", delay=0.0, number=signal.SIGTERM
    )
    assert code == 75, first
    second = command.run("distill", *options, cwd=with_teachers)
    expected = "epoch 1  health/adapter_without_gradient: An adapter of the fusion does not learn"
    assert (first.count(expected), second.count("adapter_without_gradient")) == (1, 0)
    assert second.count("health/gate_always_open") == 1
    runs = load_runs(f"sqlite:///{with_teachers}/mlflow.db", "asib").set_index("name")
    run = runs.loc["distill-L3-digits_all-s0"]
    tag = run[f"tags.{tags.HEALTH}"].split(",")
    assert {"adapter_without_gradient", "gate_always_open"} <= set(tag)
    (result,) = command.results(with_teachers).values()
    metric = metrics.HEALTH + "adapter_without_gradient"
    read = load_history(f"sqlite:///{with_teachers}/mlflow.db", [run.run_id], [metric])
    stored = [e["index"] for e in result["history"] if e["metrics"].get(metric) == 1.0]
    assert read.step.tolist() == stored == [0, 1, 4, 5]
    assert result["tags"][tags.HEALTH].split(",") == tag
