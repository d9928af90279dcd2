"""The sources of values, and YAML files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ConfigError, compose
from pipeline.config.sources import sources
from pipeline.config.yaml_file import read_yaml
from sweeps import study_file

WORDS = ["cfg=L2", "bench=digits", "teacher.1.seed=5", "runtime.experiment=it's # 1"]


def test_every_value_has_its_source() -> None:
    found = sources(WORDS)
    assert found["teacher.1.seed"] == "command line"
    assert found["teacher.0.seed"] == "conf/bench/digits.yaml"
    assert found["teacher.0.recipe.epochs"] == "conf/teacher/resnet20.yaml"
    assert found["cfg"] == "conf/cfg/L2.yaml"
    assert "select" not in found
    assert sources(["method=kd"])["method.name"] == "conf/method/kd.yaml"
    deleted = sources(["cfg=L3", "~method.num_stages"])
    assert deleted["method.num_stages"] == "default of the option"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"base:\n\t- cfg=L3\n", "line 2: found character"),
        (b"a: [1\nb: 2\n", "line 2: "),
        (b"- cfg=L3\n", "no options with values"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_yaml(path)
    (line,) = raised.value.errors
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line


def test_numbers_in_quotes_are_text() -> None:
    wrong = study_file._wrong({"low": "1e-5", "high": "1e-1"}, False)
    assert wrong is not None
    assert wrong.startswith("low '1e-5' is text, not a number")


@pytest.mark.parametrize("value", ["${nope}", "${oc.env:NOPE_OF_THIS_NAME}"])
def test_a_reference_to_nothing_names_the_option(value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose([f"method.tau={value}"])
    assert raised.value.errors[0].startswith("method.tau")


def test_a_network_of_timm_is_suggested_by_its_prefix() -> None:
    with pytest.raises(ConfigError, match="did you mean timm:resnet18"):
        compose(["student.model=resnet18"])
