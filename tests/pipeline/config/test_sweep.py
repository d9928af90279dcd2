"""Hydra's grammar of sweeps, as multiruns and studies read it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import ConfigError
from pipeline.config.groups import options_of
from pipeline.config.sweep import expand, values_of


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.lr=0.1,1e-2", [0.1, 0.01]),
        ("optim.lr=choice(0.1,0.2)", [0.1, 0.2]),
        ("seed=range(1,4)", [1, 2, 3]),
        ("seed=range(3)", [0, 1, 2]),
        ("optim.lr=range(0.5,2,0.5)", [0.5, 1.0, 1.5]),
        ("seed=range(3,0,-1)", [3, 2, 1]),
        ("seed=sort(3,1,2)", [1, 2, 3]),
        ("seed=sort(3,1,2,reverse=true)", [3, 2, 1]),
        ("seed=tag(a,choice(1,2))", [1, 2]),
        ("data.train_limit=int(choice(100.0,200.0))", [100, 200]),
        ("method.tau=float(1,2)", [1.0, 2.0]),
        ("cfg='L1','L2'", ["L1", "L2"]),
        ("cfg=glob(L*,exclude=*_*)", ["L0", "L1", "L2", "L3", "L4"]),
        ("cfg=glob([CE,KD])", ["CE", "KD"]),
        ("data.mean=[1],[2]", [[1], [2]]),
        ("method.ib_beta=interval(1e-6,1e-1)", {"low": 1e-6, "high": 0.1}),
        ("method.ib_beta=tag(log,interval(1e-6,1e-1))", {"low": 1e-6, "high": 0.1, "log": True}),
        ("method.num_stages=int(interval(1,8))", {"low": 1, "high": 8}),
        ("seed=1", None),
        ("data.mean=[1,2]", None),
        ("runtime.store=a,b", None),
        ("data.root=choice(a,b)", None),
        ("~seed", None),
    ],
)
def test_values(text: str, values: Any) -> None:
    assert values_of(text) == values


def test_a_shuffle_has_every_value() -> None:
    found = values_of("seed=shuffle(range(0,5))")
    assert isinstance(found, list)
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_names_of_a_group() -> None:
    found = expand(["experiment=glob(sota*)", "seed=0,1"])
    names = [name for name in options_of("experiment") if name.startswith("sota")]
    assert len(found) == 2 * len(names) > 2
    assert found[0] == (f"experiment={names[0]}", "seed=0")


@pytest.mark.parametrize("text", ["cfg=glob(X*)", "optim.lr=glob(*)"])
def test_a_pattern_without_a_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"fits none of CE|among the names of a group"):
        expand([text])
