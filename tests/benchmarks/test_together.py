"""Several students at once: the stacked network trains each as alone, and every way is measured."""

import argparse
import copy

import pytest
import torch

from benchmarks import together

SMALL = ["--network", "resnet8", "--pixels", "8", "--batch", "4", "--students", "2"]


def test_stacked_students_learn_what_each_learns_alone() -> None:
    given = argparse.Namespace(network="resnet8", pixels=8, batch=4, students=2, device="cpu")
    nets, images, labels = together.students(given)
    assert together.difference(nets, images, labels) < 1e-10
    weights, _ = together.stacked_gradient(copy.deepcopy(nets))
    before = copy.deepcopy(weights)
    together.one_by_one(nets, images, labels)()
    moved = dict(nets[1].named_parameters())["fc.weight"] - before["fc.weight"][1]
    assert moved.abs().max() > 0


def test_every_way_is_in_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["together", *SMALL, "--steps", "1", "--rounds", "1"])
    threads = torch.get_num_threads()
    try:
        together.main()
    finally:
        torch.set_num_threads(threads)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"one after another", "stacked", "a process each"} <= {*lines}
