"""What banks keep: rows packed and unpacked, against slow formulas."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.bank_codes import EVERYTHING, BankConfig, Bytes, Codes, Half, Largest
from trainers.distillation.state import Teacher
from trainers.view_bank import (
    Bank,
    TableOutputs,
    ViewOutputs,
    assemble,
    bank_bytes,
    mapped,
    packed,
)

CPU = torch.device("cpu")
SMALL = Codes(Largest(10, 3), Bytes())


def logits(rows: int = 20, classes: int = 10, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


def probability(row: Tensor, tau: float) -> Tensor:
    return (row.double() / tau).softmax(-1)


@pytest.mark.parametrize(("kept", "scale"), [(1, 1.0), (3, 5.0), (9, 3.0), (3, 300.0)])
def test_the_largest_logits_stay_and_the_others_share_their_probability(
    kept: int, scale: float
) -> None:
    whole, code = logits(scale=scale), Largest(10, kept)
    stored = code.pack(whole)
    assert stored.dtype == torch.int16
    assert stored.nbytes == len(whole) * code.row_bytes(10) == 20 * (4 * kept + 2)
    found = code.unpack(stored)
    for row, one in zip(whole, found, strict=True):
        order = row.argsort(descending=True)
        assert torch.equal(one[order[:kept]], row[order[:kept]].half().float())
        others = one[order[kept:]]
        assert others.unique().numel() == 1
        assert others[0] <= one[order[kept - 1]]
        mass, want = (probability(r, 4.0)[order[kept:]].sum() for r in (one, row))
        torch.testing.assert_close(mass, want, rtol=2e-2 if scale > 100 else 2e-3, atol=1e-9)


def test_the_last_classes_of_many_are_kept_too() -> None:
    whole, code = logits(classes=1000), Largest(1000, 20)
    whole[:, 990:] += 50
    found = code.unpack(code.pack(whole))
    assert torch.equal(found[:, 990:], whole[:, 990:].half().float())
    assert torch.equal(found.argmax(1), whole.argmax(1))


def test_features_in_a_byte_are_within_half_a_step_of_their_row() -> None:
    whole, code = logits(classes=7, scale=1.0), Bytes()
    whole[3], whole[4] = 0, whole[4] * 1000
    stored = code.pack(whole)
    assert stored.dtype == torch.int8
    assert stored.nbytes == len(whole) * code.row_bytes(7) == 20 * 9
    found = code.unpack(stored)
    assert found.dtype == torch.float32
    step_B1 = whole.abs().amax(1, keepdim=True) / 127
    assert bool(((found - whole).abs() <= step_B1 * 0.51 + whole.abs() * 2**-11).all())
    assert torch.equal(found[3], whole[3])


def test_by_default_everything_is_kept_as_it_was() -> None:
    whole = logits().half()
    codes = Codes.of(BankConfig(), 10)
    assert all(isinstance(code, Half) for code in codes)
    assert codes.logits.pack(whole) is whole
    assert codes.logits.unpack(whole) is whole
    part = ViewOutputs(whole, whole)
    assert isinstance(assemble([packed(part, codes)], 20, CPU), ViewOutputs)
    assert bank_bytes(3, 10, 64) == bank_bytes(3, 10, 64, codes) == 3 * 148


def test_the_rows_of_a_table_are_unpacked_wherever_it_is(tmp_path: Path) -> None:
    whole = ViewOutputs(logits(30).half(), logits(30, 6).half())
    parts = [
        packed(ViewOutputs(*rows), SMALL)
        for rows in zip(*(t.split(12) for t in whole), strict=True)
    ]
    tables = [
        assemble(parts, 30, CPU, codes=SMALL),
        assemble(parts, 30, CPU, tmp_path, SMALL),
        mapped(parts, 30, CPU, tmp_path, SMALL),
    ]
    want = [code.unpack(code.pack(t)) for code, t in zip(SMALL, whole, strict=True)]
    for table, folder in zip(tables, (None, tmp_path, tmp_path), strict=True):
        assert isinstance(table, TableOutputs)
        assert table.folder == folder
        for name, rows in zip(("logits", "pooled"), want, strict=True):
            one = getattr(table, name)
            assert len(one) == 30
            assert one.device == CPU
            for index in (torch.tensor([[3, 29], [0, 3]]), slice(5, 27)):
                assert torch.equal(one[index], rows[index])
        stored = table.logits.nbytes + table.pooled.nbytes
        assert stored == bank_bytes(30, 10, 6, SMALL) == 30 * (14 + 8)
    assert bank_bytes(30, 10, 6) == 30 * 32


def with_less(world: World, codes: Codes, folder: Path | None = None) -> World:
    """The same world with banks that keep less, in two parts."""

    def bank(old: Bank) -> Bank:
        rows = len(old.train.logits)
        parts = zip(old.train.logits.split(250), old.train.pooled.split(250), strict=True)
        small = [packed(ViewOutputs(*part), codes) for part in parts]
        if folder is not None:
            return Bank(mapped(small, rows, CPU, folder, codes), old.val)
        return Bank(assemble(small, rows, CPU, codes=codes), old.val)

    teachers = [Teacher(teacher.model, bank(teacher.bank)) for teacher in world.teachers]
    return world._replace(teachers=teachers)


@pytest.mark.parametrize(
    ("cfg", "options"),
    [
        ("KD", []),
        *(
            pytest.param(cfg, options, marks=pytest.mark.thorough)
            for cfg, options in (
                ("L2", []),
                ("L3", []),
                ("L3", ["method.teacher_levels=[0]"]),
                ("L2_null_tokens", []),
                ("KD_null", []),
            )
        ),
    ],
)
def test_a_run_from_such_banks_is_the_same_wherever_they_are(
    cfg: str, options: list[str], world: World, tmp_path: Path
) -> None:
    stages = [] if cfg.startswith("KD") else ["budget.adapt_epochs=4", "method.num_stages=2"]
    c = tiny.rung(cfg, "budget.student_epochs=2", *stages, *options)
    held, there = (tiny.run(c, with_less(world, SMALL, at)) for at in (None, tmp_path))
    assert tiny.differences(held.state.state_dict(), there.state.state_dict()) == []
    whole = tiny.run(c, with_less(world, EVERYTHING))
    assert tiny.differences(whole.state.state_dict(), tiny.run(c, world).state.state_dict()) == []
    for one, other in zip(held.losses(), whole.losses(), strict=True):
        assert one != other
        assert math.isclose(one, other, rel_tol=0.2)


def test_a_stack_is_fitted_to_what_is_kept(world: World) -> None:
    c = tiny.rung("stack", "budget.student_epochs=1")
    less, whole = (tiny.run(c, one).state.stack for one in (with_less(world, SMALL), world))
    assert less is not None
    assert whole is not None
    assert not torch.equal(less.weight, whole.weight)
    assert abs(less.val_top1 - whole.val_top1) < 0.15
