"""`show` and `--cfg`: the configuration with sources and what is part of the key."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config import ConfigError, compose
from pipeline.identity import key_options, same_experiment
from pipeline.show import as_yaml, differences

WORDS = ["cfg=L2", "bench=digits", "teacher.1.seed=5", "runtime.experiment=it's # 1"]


def test_what_is_printed_is_the_configuration() -> None:
    plain = asdict(compose(WORDS))
    plain["teacher"] = {int(number): one for number, one in plain["teacher"].items()}
    assert yaml.safe_load(as_yaml("distill", WORDS)) == yaml.safe_load(yaml.safe_dump(plain))


def test_a_value_has_its_source_and_whether_it_is_part_of_the_key() -> None:
    lines = as_yaml("distill", ["cfg=L2", "seed=3", "runtime.threads=2"]).splitlines()
    assert "seed: 3  # command line; in the key" in lines
    assert "  threads: 2  # command line; not in the key" in lines
    assert any(line.startswith("  num_stages: ") and "; in the key" in line for line in lines)


@pytest.mark.parametrize(
    ("cfg", "option", "other", "counts"),
    [
        ("CE", "method.ib_beta", "0.5", False),
        ("L2", "method.ib_beta", "0.5", True),
        ("L2", "optim.step_factor", "0.5", False),
        ("L2", "optim.lr", "0.5", True),
        ("L2", "teacher.0.seed", "7", True),
        ("CE", "teacher.0.seed", "7", False),
        ("L2", "runtime.threads", "2", False),
        ("L2", "select", "last", True),
        ("CE", "data.train_limit", "60", True),
        ("L0", "method.ib_beta_warmup_epochs", "3", False),
    ],
)
def test_part_of_the_key_is_what_changes_it(
    cfg: str, option: str, other: str, counts: bool
) -> None:
    one, two = compose([f"cfg={cfg}"]), compose([f"cfg={cfg}", f"{option}={other}"])
    assert (same_experiment("distill", one) != same_experiment("distill", two)) is counts
    assert (option in key_options("distill", one)) is counts


def test_options_in_the_key_are_options() -> None:
    config = compose(["cfg=L4", "overlap=50"])
    tops = {field.name for field in fields(config)}
    for stage in ("distill", "finetune"):
        assert {key.partition(".")[0] for key in key_options(stage, config)} <= tops
    assert "overlap" in key_options("distill", config)


def test_two_rungs_are_printed_as_what_differs() -> None:
    lines = differences("distill", [["cfg=L2", "seed=1"], ["cfg=L3", "seed=1"]])
    assert lines[:3] == [
        "cfg  # not in the key",
        "  cfg=L2  L2  # conf/cfg/L2.yaml",
        "  cfg=L3  L3  # conf/cfg/L3.yaml",
    ]
    assert "method.adapt  # in the key" in lines
    assert not any(line.startswith("seed") for line in lines)
    assert lines[-1] == "2 configurations, 2 experiments"
    same = differences("distill", [["cfg=CE", f"method.ib_beta=0.{k}"] for k in (1, 2)])
    assert same[0] == "method.ib_beta  # not in the key"
    assert same[-1] == "2 configurations, one experiment: the same key"


def test_a_part_of_it() -> None:
    text = as_yaml("distill", ["optim.lr=0.5"], "optim")
    assert text.startswith("# @package optim\nname: adamw")
    assert yaml.safe_load(text)["lr"] == 0.5
    assert yaml.safe_load(as_yaml("distill", ["optim.lr=0.5"], "optim.lr")) == 0.5
    with pytest.raises(ConfigError, match="--package optm: unknown; did you mean optim"):
        as_yaml("distill", [], "optm")


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["distill", "--cfg", "job"],
        ["finetune", "--cfg=job"],
        ["main", "-c", "all"],
        ["bank", "--cfg"],
    ],
)
def test_nothing_is_run(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "seed=3"]) == 0
    assert "seed: 3  # command line" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
