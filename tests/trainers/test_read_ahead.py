"""Reading ahead: the same rows, from a thread that ends with its block."""

import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.stages.images import in_file
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import TrainingData
from trainers.read_ahead import AHEAD, Reads, reading_ahead
from trainers.tables import MappedTable

CPU = torch.device("cpu")
STEPS, BATCH = 12, 5
WHOLE = torch.arange(300).view(100, 3).half()


def a_plan() -> Tensor:
    return torch.randint(100, (STEPS, BATCH), generator=torch.Generator().manual_seed(0))


def a_table(gathered: list[Tensor] | None = None, fails_at: int | None = None) -> MappedTable:
    """A table that lists what is gathered, and fails at the n-th time."""
    table = MappedTable(WHOLE.split(30), CPU)
    gather, found = table.gather, [] if gathered is None else gathered

    def listed(index: Tensor) -> Tensor:
        found.append(index)
        if len(found) - 1 == fails_at:
            raise OSError("the disk is gone")
        return gather(index)

    table.gather = listed  # type: ignore[method-assign]
    return table


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("read-ahead")]


@pytest.mark.parametrize(
    "order", [range(STEPS), range(5, STEPS), [3, 3, 4, 9, 2, 3, 0], [STEPS - 1]]
)
def test_rows_are_those_without(order: list[int]) -> None:
    plan, table = a_plan(), a_table()
    with reading_ahead([Reads(table, plan)]):
        for step in order:
            assert torch.equal(table[plan[step]], WHOLE[plan[step]])
            other = plan[step].flip(0)  # no part of the plan
            assert torch.equal(table[other], WHOLE[other])
    assert torch.equal(table[plan[0]], WHOLE[plan[0]])


def test_parts_of_the_plan_may_have_any_shape_and_several_rows_of_the_plan_one_row() -> None:
    plan, table = a_plan(), a_table()
    blocks = [part.flatten() for part in plan.split(5)]
    with reading_ahead([Reads(table, blocks, each=4)]):
        for first in range(0, STEPS, 5):
            rows = plan[first : first + 5].flatten()
            assert torch.equal(table.read(rows // 4, rows), WHOLE[rows // 4])


def test_no_more_is_read_than_the_next_steps() -> None:
    gathered: list[Tensor] = []
    plan, table = a_plan(), a_table(gathered)
    with reading_ahead([Reads(table, plan)]):
        assert gathered == []
        for step in range(STEPS):
            table[plan[step]]
            assert len(gathered) <= min(STEPS, step + 1 + AHEAD)
    assert [index.tolist() for index in gathered] == plan.tolist()  # each once, in order


def test_the_next_rows_are_read_while_a_step_is_computed() -> None:
    plan, table, here = a_plan(), a_table(), threading.Event()
    gather = table.gather

    def last(index: Tensor) -> Tensor:
        if torch.equal(index, plan[AHEAD]):
            here.set()
        return gather(index)

    table.gather = last  # type: ignore[method-assign]
    with reading_ahead([Reads(table, plan)]):
        table[plan[0]]
        assert here.wait(10)  # nothing was requested meanwhile


def test_an_error_of_the_thread_is_raised_where_its_rows_are_requested() -> None:
    plan, table, read = a_plan(), a_table(fails_at=2), 0

    def epoch() -> None:
        nonlocal read
        with reading_ahead([Reads(table, plan)]):
            for rows in plan:
                table[rows]
                read += 1

    with pytest.raises(OSError, match="the disk is gone"):
        epoch()
    assert read == 2
    assert threads() == []


def test_the_thread_ends_with_its_block_whatever_ends_it() -> None:
    plan, table = a_plan(), a_table()

    def epoch() -> None:
        with reading_ahead([Reads(table, plan)]):
            table[plan[0]]
            assert len(threads()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        epoch()
    assert threads() == []
    assert table.ahead is None


def test_tables_on_the_device_have_no_thread() -> None:
    def unread() -> Tensor:
        raise AssertionError("the plan of a resident table is not looked at")

    plan = (unread() for _ in range(1))
    with reading_ahead([Reads(WHOLE, plan), Reads(None, plan)]):
        assert threads() == []


@pytest.fixture
def gathered_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that gathered rows."""
    found, gather = list[str](), MappedTable.gather

    def named(table: MappedTable, index: Tensor) -> Tensor:
        found.append(threading.current_thread().name)
        return gather(table, index)

    monkeypatch.setattr(MappedTable, "gather", named)
    return found


def all_mapped(world: World, folder: Path) -> World:
    train = in_file(world.data.train, folder / "pixels.u8")
    mapped = world._replace(data=TrainingData(train, world.data.val))
    return tiny.with_mapped_banks(mapped, folder)


@pytest.mark.parametrize(
    ("cfg", "options"),
    [
        ("KD", []),
        ("L3", ["budget.adapt_epochs=4", "method.num_stages=2"]),
        *(
            pytest.param(
                cfg,
                [*options, "budget.adapt_epochs=4", "method.num_stages=2"],
                marks=pytest.mark.thorough,
            )
            for cfg, options in (
                ("L2", ["method.query=live"]),
                ("L2", ["method.folds=2"]),
                ("KD_null", []),
                ("L2_null_tokens", []),
                ("L4", []),
            )
        ),
    ],
)
def test_an_interrupted_run_whose_tables_are_read_ahead_is_bit_equal(
    cfg: str, options: list[str], world: World, tmp_path: Path, gathered_by: list[str]
) -> None:
    c, there = tiny.rung(cfg, "budget.student_epochs=2", *options), all_mapped(world, tmp_path)
    whole = tiny.run(c, world)
    assert gathered_by == []
    state = tiny.new_state(c, there)
    while not state.progress.done:  # stopped within every epoch, and resumed
        saved, state = tiny.through_a_file(state.state_dict()), tiny.new_state(c, there)
        state.load_state_dict(saved)
        state.stop = tiny.stop_after(6)
        tiny.until_interrupted(partial(tiny.epochs_of, c, there, state))
        assert threads() == []
    assert tiny.differences(whole.state.state_dict(), state.state_dict()) == []
    assert any(name.startswith("read-ahead") for name in gathered_by)
    if cfg == "KD":
        assert all(name.startswith("read-ahead") for name in gathered_by)
