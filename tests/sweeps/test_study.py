"""A study as a value: its space, its configurations, its identity."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config import ConfigError, compose
from sweeps.study import ROW, Study, contains, merged
from sweeps.study_file import study_of

SMALL = ["data.train_limit=100"]


def test_beta_tries_zero_and_the_rungs_own_value_first() -> None:
    study = study_of("beta", {}, ["cfg=L2", *SMALL])
    own = compose(["cfg=L2"]).method.ib_beta
    assert study.known_params == [{"method.ib_beta": 0.0}, {"method.ib_beta": own}]
    assert [contains(study.distributions, params) for params in study.known_params] == [False, True]
    assert study.wanted == 30


def test_a_grid_is_all_combinations_and_wants_as_many_trials() -> None:
    study = Study("x", [], space={"cfg": ["CE", "KD"], "optim.lr": [0.1, 0.2]}, rows={"r": ["a=1"]})
    assert len(study.known_params) == study.wanted == 4
    assert study.known_params[1] == {"cfg": "CE", "optim.lr": 0.2, ROW: "r"}


def test_a_trial_has_base_then_parameters_then_seed_each_key_once() -> None:
    study = Study("x", ["cfg=L3", "optim.lr=1"], rows={"two": ["method.a=true", "optim.lr=2"]})
    found = study.overrides({ROW: "two"}, 7)
    assert found == ["cfg=L3", "optim.lr=2", "method.a=true", "seed=7"]
    assert merged(["a=1", "b=2", "+a=3"]) == ["+a=3", "b=2"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1, 2], CategoricalDistribution),
        ({"low": 1e-3, "high": 1.0, "log": True}, FloatDistribution),
        ({"low": 1, "high": 8}, IntDistribution),
    ],
)
def test_spaces_become_distributions(value: object, kind: type) -> None:
    assert isinstance(Study("x", [], space={"a": value}).distributions["a"], kind)


def test_the_key_depends_on_base_and_space_and_not_on_the_number_of_trials() -> None:
    def key(base: str = "cfg=L1", **more: Any) -> str:
        return Study("x", [base, *SMALL], **{"space": {"method.ib_beta": [1.0]}} | more).key

    first = key()
    assert first == key(trials=5)
    others = [key("cfg=L2"), key(seeds=(0, 1)), key(sampler="gp"), key(space={"optim.lr": [1.0]})]
    assert len({first, *others}) == 5


def test_a_run_is_composed_once_and_differs_by_its_seed_alone() -> None:
    study = Study("x", ["cfg=L1", *SMALL], seeds=(3, 4), space={"method.ib_beta": [0.5]})
    for seed in study.seeds:
        found = study.at({"method.ib_beta": 0.5}, seed)
        assert found == compose(["cfg=L1", *SMALL, "method.ib_beta=0.5", f"seed={seed}"])


def test_own_of_an_unknown_option_is_an_error() -> None:
    study = Study("x", ["cfg=CE", *SMALL], sampler="tpe", trials=1, enqueue=({"method.be": "own"},))
    with pytest.raises(ConfigError, match=r"enqueue: method\.be: own"):
        _ = study.known_params
