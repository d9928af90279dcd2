"""Reading a study: its file, the command line, every error and all of them at once."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis import tags
from pipeline.config import ConfigError
from pipeline.config.groups import options_of
from pipeline.tracking.target import TrackingTarget
from sweeps import study_file
from sweeps.study import Study
from sweeps.study_file import entries, read_study, study_of
from sweeps.tracking import study_target


@pytest.mark.parametrize("name", options_of("study"))
def test_every_file_has_known_entries_and_varies_something(name: str) -> None:
    """Methods and benches that a study names are checked when it is run."""
    values = read_study(name)
    assert values.keys() <= set(entries())
    assert Study(name=name, **{"base": []} | values).distributions


def test_the_a_step_and_the_fusion_can_be_tuned() -> None:
    study = study_of("fusion", {}, [])
    params = {
        "method.query": "none",
        "method.residual": True,
        "method.folds": 4,
        "method.a_lr": 3e-3,
        "budget.adapt_epochs": 48,
    }
    found = study.at(params, 100)
    assert (found.method.query, found.method.residual, found.method.folds) == ("none", True, 4)
    assert (found.method.a_lr, found.budget.adapt_epochs) == (3e-3, 48)
    (own,) = study.known_params
    assert (own["method.query"], own["budget.adapt_epochs"]) == ("stage", 16)


def test_all_errors_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        study_of(
            "beta",
            {"sampler": "tpee", "trials": "many", "seeds": "0,0"},
            ["method.ib_beta=1", "seed=3"],
        )
    text = str(raised.value)
    assert text.startswith("5 errors")
    for part in (
        "did you mean tpe?",
        "trials=many: not a whole",
        "seeds=0,0: not",
        "method.ib_beta: varied",
        "seeds=0,1,2",
    ):
        assert part in text


def test_errors_in_configurations_are_found_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"did you mean method\.ib_beta"):
        study_of("beta", {}, ["method.ib_bet=1"])
    with pytest.raises(ConfigError, match="validation"):
        study_of("beta", {}, ["data.val_fraction=0", "select=last", "cfg=CE"])


def test_every_named_configuration_is_checked_with_every_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {"a": ["cfg=L1"], "b": ["cfg=L7"], "c": ["cfg=L2"]}
    values = {"sampler": "tpe", "trials": 2, "rows": rows}
    monkeypatch.setattr(study_file, "read_study", lambda _: values)
    with pytest.raises(ConfigError, match="cfg=L7: unknown"):
        study_of("mine", {}, [])


def test_a_named_configuration_may_override_its_file_and_not_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {"slow": ["optim.lr=1e-4"], "fast": []}
    values = {"sampler": "grid", "rows": rows, "base": ["cfg=CE", "optim.lr=1e-2"]}
    monkeypatch.setattr(study_file, "read_study", lambda _: values)
    study = study_of("mine", {}, [])
    rates = [study.at(params, 0).optim.lr for params in study.known_params]
    assert rates == [1e-4, 1e-2]
    with pytest.raises(ConfigError, match=r"optim\.lr: varied by study mine: leave it out"):
        study_of("mine", {}, ["optim.lr=1e-3"])


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean beta"):
        read_study("betta")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": {"a": {"low": 1, "high": 1}}}, "space: a: low 1 is not below high 1"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "a log range starts above 0"),
        ({"space": {"a": {"low": 0, "hi": 1}}}, "space: a: a list of values, or"),
        ({"space": {"a": [1, 1.0]}}, "space: a: a value is repeated"),
        ({"space": {"a": [[1], [2]]}}, "space: a: not a list of plain values"),
        ({"space": {"a": {"low": 0, "high": 1}}, "sampler": "grid"}, "a grid needs a list"),
        ({"space": {"a": [1, 2]}, "sampler": "grid", "trials": 3}, "the grid has 2 configurations"),
        ({"space": [1]}, "space=1: not options with their values"),
        ({"rows": {"a": "cfg=L1"}}, "not names, each with a list"),
        ({"seeds": 3}, "conf/study/mine.yaml: seeds=3: not whole numbers"),
        ({"enqueue": [3]}, "enqueue=3: not a list of configurations"),
        ({"sampeler": "grid"}, "sampeler: no such entry; did you mean sampler?"),
        ({}, "nothing varies"),
    ],
)
def test_errors_in_a_file(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(
        study_file, "read_study", lambda _: {"sampler": "tpe", "trials": 2} | values
    )
    with pytest.raises(ConfigError) as raised:
        study_of("mine", {}, ["optim.lr=1", "optim.lr=2"])
    assert message in str(raised.value)


def test_given_values_replace_those_of_the_grid() -> None:
    study = study_of("beta_grid", {}, ["cfg=L2", "method.ib_beta=0,1e-3", "data.train_limit=100"])
    assert study.known_params == [{"method.ib_beta": 0.0}, {"method.ib_beta": 1e-3}]
    assert study.key != study_of("beta_grid", {}, ["cfg=L2", "data.train_limit=100"]).key
    assert not any("ib_beta" in text for text in study.base)
    with pytest.raises(ConfigError, match="or give several values, as in "):
        study_of("beta_grid", {}, ["method.ib_beta=1e-3"])
    with pytest.raises(ConfigError, match=r"method\.ib_beta=-1.0: must be >= 0"):
        study_of("beta_grid", {}, ["method.ib_beta=0,-1.0"])


def test_configurations_outside_a_given_list_are_not_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_of("beta", {"trials": "1"}, ["cfg=L1", "method.ib_beta=0,1e-2"])
    assert all(params["method.ib_beta"] in (0, 0.01) for params in study.known_params)
    assert "left out method.ib_beta=0.001" in capsys.readouterr().out
    whole = study_of("beta", {"trials": "1"}, ["cfg=L1"])
    assert {"method.ib_beta": 0.001} in whole.known_params


def test_a_primary_claim_is_declared_in_the_file_and_is_no_part_of_the_key() -> None:
    study = study_of("ladder", {}, ["data.train_limit=200"])
    assert study.claim == {"rung": "L4"}
    assert replace(study, claim=None).key == study.key


@pytest.mark.parametrize(
    "claim",
    [
        "L4",
        {"control": "KD"},
        {"rung": "L4", "control": []},
        {"rung": "L4", "margin": 0},
        {"rung": "L4", "seed": [0]},
    ],
)
def test_a_claim_that_cannot_be_read_is_one_message(
    claim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_study("ladder") | {"claim": claim}
    monkeypatch.setattr(study_file, "read_study", lambda name: values)
    with pytest.raises(ConfigError, match=r"conf/study/ladder.yaml: claim=.*: not \{rung: L4\}"):
        study_of("ladder", {}, [])


def test_the_claim_is_written_into_the_run_of_the_study_with_its_seeds(tmp_path: Path) -> None:
    study = study_of("ladder", {"seeds": "3,4,5"}, ["data.train_limit=200"])
    trial_store = SimpleNamespace(study=study, folder=tmp_path)
    target = TrackingTarget("sqlite:///none.db", "e", None, "sweep", tmp_path)
    found = study_target(trial_store, target).run.tags[tags.CLAIM]  # type: ignore[arg-type]
    assert json.loads(found) == {"rung": "L4", "seeds": [3, 4, 5]}
    trial_store.study = replace(study, claim=None)
    assert tags.CLAIM not in study_target(trial_store, target).run.tags  # type: ignore[arg-type]
