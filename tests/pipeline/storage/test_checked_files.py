"""Damaged files of a run: named as damaged, and written again over whatever is in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.storage.atomic import CorruptFile
from pipeline.storage.run_store import DamagedRun, RunFolder, Store, if_intact
from tests.pipeline import records


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


DAMAGES: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(b"\x00\xff\x80"),
    lambda path: path.write_text("[]"),
    lambda path: path.write_text("3"),
    lambda path: path.write_text('{"sha256": 3, "body": {}}'),
    lambda path: path.write_text("[" * 200_000),
    _folder,
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = Store(tmp_path).run("finetune", "0123456789ab")
    digest = folder.save_tensors("teacher", {"w": torch.ones(3)})
    folder.write_spec(records.spec())
    folder.finish(records.result(key=folder.key, weights={"teacher": digest}))
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_small_file_is_written_again(
    run: RunFolder, damage: Callable[[Path], object]
) -> None:
    damage(run.path / "spec.json")
    with pytest.raises(CorruptFile, match=r"spec\.json"):
        run.spec()
    assert if_intact(run.spec) is None
    run.write_spec(records.spec())
    assert run.spec() == records.spec()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_says_what_to_do(run: RunFolder, damage: Callable[[Path], object]) -> None:
    damage(run.path / "result.json")
    with pytest.raises(DamagedRun, match=r"move its folder away \(mv .* .*\.damaged\).*again"):
        run.result()


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_lost_weights_are_named_and_are_no_whole_result(
    run: RunFolder, damage: Callable[[Path], object]
) -> None:
    result = run.result()
    assert result is not None
    assert run.whole_result() == result
    damage(run.tensors_path("teacher"))
    assert "teacher" in run.weights_faults(result)
    assert run.whole_result() is None
    run.save_tensors("teacher", {"w": torch.ones(3)})
    assert run.whole_result() == result


def test_a_result_that_is_taken_back_is_kept(run: RunFolder) -> None:
    run.reopen()
    assert run.result() is None
    assert (run.path / "result.json.replaced").is_file()


@pytest.mark.parametrize(("stage", "key"), [("..", "x"), ("a", "../b"), ("a", ""), ("a", "b\n")])
def test_names_of_another_store_are_no_paths(tmp_path: Path, stage: str, key: str) -> None:
    assert Store(tmp_path).find(stage, key) is None
