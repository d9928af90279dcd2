"""A study as a value: its space, its points, its identity, and the mistakes in it."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config import ConfigError, compose
from pipeline.groups import options_of
from sweeps.study import ROW, Study, _entries, contains, merged, read_study, study_of

SMALL = ["data.train_limit=100"]


@pytest.mark.parametrize("name", options_of("study"))
def test_every_file_has_known_entries_and_varies_something(name: str) -> None:
    """Methods and benches that a study names are checked when it is run."""
    values = read_study(name)
    assert values.keys() <= set(_entries())
    assert Study(name=name, **{"base": []} | values).distributions


def test_beta_tries_zero_and_the_rungs_own_value_first() -> None:
    study = study_of("beta", {}, ["cfg=L2", *SMALL])
    own = compose(["cfg=L2"]).method.ib_beta
    assert study.points == [{"method.ib_beta": 0.0}, {"method.ib_beta": own}]
    assert [contains(study.distributions, point) for point in study.points] == [False, True]
    assert study.wanted == 30


def test_a_grid_is_all_combinations_and_its_length_what_is_wanted() -> None:
    study = Study("x", [], space={"cfg": ["CE", "KD"], "optim.lr": [0.1, 0.2]}, rows={"r": ["a=1"]})
    assert len(study.points) == study.wanted == 4
    assert study.points[1] == {"cfg": "CE", "optim.lr": 0.2, ROW: "r"}


def test_what_a_trial_runs_is_base_then_point_then_seed_each_key_once() -> None:
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


def test_the_key_is_what_is_varied_over_what_and_not_how_many() -> None:
    def key(base: str = "cfg=L1", **more: Any) -> str:
        return Study("x", [base, *SMALL], **{"space": {"method.ib_beta": [1.0]}} | more).key

    first = key()
    assert first == key(trials=5)
    others = [key("cfg=L2"), key(seeds=(0, 1)), key(sampler="gp"), key(space={"optim.lr": [1.0]})]
    assert len({first, *others}) == 5


def test_all_mistakes_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        study_of("beta", {"sampler": "tpee", "trials": "many"}, ["method.ib_beta=1", "seed=3"])
    text = str(raised.value)
    assert text.startswith("4 mistakes")
    for part in ("did you mean tpe?", "trials=many", "method.ib_beta: varied", "seeds=0,1,2"):
        assert part in text


def test_mistakes_in_configurations_are_found_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"did you mean method\.ib_beta"):
        study_of("beta", {}, ["method.ib_bet=1"])
    with pytest.raises(ConfigError, match="validation"):
        study_of("beta", {}, ["data.val_fraction=0", "select=last", "cfg=CE"])


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean beta"):
        read_study("betta")
