"""Parts from outside the project: named by ASIB_EXTEND, used by a run, and part of its key."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import ConfigError, compose, extensions
from pipeline.config.groups import CONF, OWN
from pipeline.identity import identity, run_key
from tests.end_to_end import command
from trainers import models
from trainers.data import DATASETS
from trainers.methods import METHODS
from trainers.models.registry import ARCHITECTURES

MODULE = '''
"""A method, a network and a data set from outside the project."""

from dataclasses import dataclass

from torch import nn

from trainers.data import DATASETS, digits
from trainers.methods import METHODS
from trainers.methods.ce import Ce, CeConfig
from trainers.models import Outputs
from trainers.models.cifar_resnet import CifarResNet
from trainers.models.registry import ARCHITECTURES, Architecture
from trainers.options import option


@dataclass
class MineConfig(CeConfig):
    name: str = option("mine", "the method")


class Mine(Ce):
    config_type = MineConfig


def narrow(classes, channels, pixels, pretrained):
    return CifarResNet(8, (4, 4, 8, 8), classes, channels)


def my_digits(config):
    return digits.read(config)


METHODS["mine"] = Mine
ARCHITECTURES["narrow"] = Architecture(narrow, 8, 4, weights=False)
DATASETS["my_digits"] = my_digits
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module and a file of options for its method and data set."""
    registries = (METHODS, ARCHITECTURES, DATASETS)
    before = [dict(registry) for registry in registries]
    (tmp_path / "my_parts.py").write_text(MODULE)
    data = (CONF / "data/digits.yaml").read_text().replace("name: digits", "name: my_digits")
    for name, text in {"method/mine": "name: mine\n", "data/my_digits": data}.items():
        path = tmp_path / "options" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(extensions.EXTEND, "my_parts")
    monkeypatch.setenv(OWN, str(tmp_path / "options"))
    extensions.load.cache_clear()
    yield tmp_path
    extensions.load.cache_clear()
    sys.modules.pop("my_parts", None)
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


def test_they_are_composed_and_part_of_the_key(outside: Path) -> None:
    config = compose(["method=mine", "student.model=narrow", "data=my_digits"])
    assert (config.method.name, config.student.model) == ("mine", "narrow")
    assert models.build("narrow", 10, 16, in_chans=1)
    found = identity("distill", config)
    assert len(found["extensions"]) == 1  # one file
    before = run_key("distill", config)
    (outside / "my_parts.py").write_text(MODULE + "\n# changed\n")
    assert run_key("distill", config) != before


def test_what_is_the_projects_own_has_no_such_part_of_its_key(outside: Path) -> None:
    assert "extensions" not in identity("distill", compose(["cfg=CE"]))


def test_a_module_that_cannot_be_imported_is_one_message(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(extensions.EXTEND, "no_such_module")
    extensions.load.cache_clear()
    with pytest.raises(ConfigError, match="ASIB_EXTEND=no_such_module: cannot be imported"):
        compose([])


@pytest.mark.thorough
def test_a_run_of_an_outside_method(outside: Path) -> None:
    words = ("method=mine", "student.model=narrow", "data=my_digits", *command.TINY)
    environment = {extensions.EXTEND: "my_parts", OWN: str(outside / "options")}
    output = command.run("distill", *words, cwd=outside, **environment)
    assert "finished distill-mine-digits_all-my_digits-s0" in output
    (result,) = command.results(outside).values()
    (spec,) = (outside / "store/runs/distill").glob("*/spec.json")
    assert result["metrics"]["test/top1"] >= 0
    assert len(json.loads(spec.read_text())["body"]["identity"]["extensions"]) == 1
