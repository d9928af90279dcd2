"""Mapped tables against resident ones."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.data import TrainingData
from trainers.distillation.state import StepInputs
from trainers.errors import UserError
from trainers.tables import Filling, MappedTable
from trainers.view_bank import TableOutputs, ViewOutputs, mapped

CPU = torch.device("cpu")
SHORT = ["budget.student_epochs=2", "budget.adapt_epochs=4", "method.num_stages=2"]


def numbers(rows: int, width: int = 3) -> Tensor:
    return torch.arange(rows * width).view(rows, width).half()


@pytest.mark.parametrize("sizes", [[10], [4, 4, 2], [5, 5], [2, 7, 1], [1] * 10])
def test_rows_of_a_mapped_table_are_those_of_a_resident_one(sizes: list[int]) -> None:
    whole = numbers(10)
    table = MappedTable(whole.split(sizes), CPU)
    assert (len(table), table.width, table.nbytes) == (10, 3, 60)
    for index in ([0], [9, 0, 3, 3], [], list(range(10))):
        rows = torch.tensor(index, dtype=torch.long)
        assert torch.equal(table[rows], whole[rows])
    assert torch.equal(table[torch.tensor([[1, 7], [4, 4]])], whole[torch.tensor([[1, 7], [4, 4]])])
    for part in (slice(0, 10), slice(2, 9), slice(3, 4), slice(8, 99), slice(4, 4), slice(None, 5)):
        assert torch.equal(table[part], whole[part])
    for wrong in (10, -1):
        with pytest.raises(IndexError, match="of a table of 10"):
            table[torch.tensor([3, wrong])]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_a_table_has_the_type_of_its_rows(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = numbers(10).to(dtype)
    mapped_, filled = MappedTable(whole.split(4), CPU), Filling(10, CPU, tmp_path, dtype)
    for table in (mapped_, filled.filled(whole.split(6))):
        found = table[torch.tensor([9, 0])]
        assert found.dtype == dtype
        assert torch.equal(found, whole[[9, 0]])


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_table_is_filled_from_its_start(on_disk: bool, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "tables" if on_disk else None
    table = Filling(10, CPU, folder).filled([numbers(10)[:4], numbers(10)[4:].float()])
    assert torch.equal(table[torch.arange(10)], numbers(10))
    assert isinstance(table, MappedTable) == on_disk
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []  # the file has no name


def test_a_full_disk_is_an_error_that_names_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=rf"2\.0 GB are needed in {tmp_path}"):
        Filling(1_000_000, CPU, tmp_path).add(torch.zeros(1, 1000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cfg", "options"),
    [
        ("KD", []),
        ("L3", []),
        ("L3", ["method.teacher_levels=[0]"]),
        ("L2_null_tokens", ["method.feat_kd_alpha=0.1"]),
        *(
            pytest.param(cfg, options, marks=pytest.mark.thorough)
            for cfg, options in (
                ("L1", []),
                ("L2", []),
                ("L4", []),
                ("L2", ["method.query=none"]),
                ("L2", ["method.folds=2"]),
                ("L2_null", []),
            )
        ),
    ],
)
def test_a_run_with_mapped_banks_is_bit_equal(
    cfg: str, options: list[str], world: World, tmp_path: Path
) -> None:
    stages = SHORT if cfg != "KD" else SHORT[:1]
    c = tiny.rung(cfg, *stages, *options)
    one, two = tiny.run(c, world), tiny.run(c, tiny.with_mapped_banks(world, tmp_path))
    assert tiny.differences(one.state.state_dict(), two.state.state_dict()) == []
    assert tiny.without_cost(one.epochs) == tiny.without_cost(two.epochs)
    for bank in (two.state.queries, *(two.state.adapted or ())):
        assert bank is None or isinstance(bank.train, TableOutputs)


def test_tables_are_mapped_where_the_banks_are(world: World, tmp_path: Path) -> None:
    c = tiny.rung("L2")
    data = TrainingData(world.data.train, world.data.val)
    for there, folder in ((world, None), (tiny.with_mapped_banks(world, tmp_path), tmp_path)):
        state = tiny.new_state(c, there)
        assert StepInputs.prepare(c, data, there.teachers, state).table_folder == folder


def test_parts_that_do_not_make_up_a_mapped_bank_are_an_error(tmp_path: Path) -> None:
    parts = [ViewOutputs(numbers(4), numbers(4, 2)), ViewOutputs(numbers(4), numbers(4, 2))]
    with pytest.raises(ValueError, match="a table of 8 rows, not 9"):
        mapped(parts, 9, CPU, tmp_path)
