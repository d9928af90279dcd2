"""Ranges of a study that the command line changes, and options that it adds."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config import ConfigError
from sweeps.study_file import study_of

BETA, TRIALS = "method.ib_beta", {"trials": "4", "seeds": "range(0,2)"}


def test_an_interval_takes_the_place_of_the_files() -> None:
    study = study_of("beta", TRIALS, [f"{BETA}=tag(log,interval(1e-5,1e-3))"])
    assert study.distributions == {BETA: FloatDistribution(1e-5, 1e-3, log=True)}
    assert study.seeds == (0, 1)
    assert [params[BETA] for params in study.known_params] == [0.001]  # 0 is outside


def test_options_are_added() -> None:
    given = ["method.tau=interval(1.0,8.0)", "method.num_stages=int(interval(2,4))", "optim.lr=1,2"]
    study = study_of("beta", TRIALS, given)
    assert study.distributions["method.tau"] == FloatDistribution(1.0, 8.0)
    assert study.distributions["method.num_stages"] == IntDistribution(2, 4)
    assert study.distributions["optim.lr"] == CategoricalDistribution([1, 2])
    first, second = study.known_params
    assert first == {BETA: 0.0, "method.tau": 4.0, "method.num_stages": 4, "optim.lr": 1}
    assert second[BETA] == study.config.method.ib_beta
    assert study.key != study_of("beta", TRIALS, []).key


def test_an_option_of_the_base_can_be_varied() -> None:
    study = study_of("beta_grid", {}, ["cfg=L2,L3", f"{BETA}=0,1e-3"])
    assert [params["cfg"] for params in study.known_params] == ["L2", "L3"] * 2
    assert not any(text.startswith("cfg=") for text in study.base)


def test_named_configurations_are_varied_too() -> None:
    study = study_of("switches", {}, ["optim.lr=1e-3,2e-3"])
    assert len(study.known_params) == 2 * len(study.rows or {}) > 2


@pytest.mark.parametrize(
    ("study", "text", "message"),
    [
        ("beta_grid", f"{BETA}=interval(0,1)", "a grid needs a list of values .* sampler=tpe"),
        ("beta", f"{BETA}=tag(log,interval(0,1))", "a log range starts above 0"),
        ("beta", "optim.lr=glob(x)", "glob.. chooses among the names of a group"),
        ("beta", "seed=0,1", "seeds=0,1,2 sets them"),
    ],
)
def test_errors(study: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_of(study, {"trials": "4"} if study == "beta" else {}, [text])


def test_all_errors_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        study_of("beta", {"seeds": "x"}, ["optim.lrr=1", "cfg=glob(X*)", "method.tau=-1"])
    for part in ("seeds=x", "optim.lrr", "glob(X*)", "method.tau=-1"):
        assert part in str(raised.value)
