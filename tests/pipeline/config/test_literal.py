"""Text and paths are literal: never swept, never empty, with `~` for the home folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import ConfigError, compose
from pipeline.config.overrides import _known, is_literal
from pipeline.config.sweep import expand
from pipeline.launch import multirun
from sweeps.__main__ import main as sweep

KEYS = list(_known())
PATHS = [key for key, (_, info) in _known().items() if info.path]


def test_the_paths_are_marked_as_such() -> None:
    assert {"data.root", "runtime.store", "teacher.0.ckpt"} == set(PATHS)


@pytest.mark.parametrize("value", ["", "''", " "])
def test_no_option_is_empty(value: str) -> None:
    keys = [*KEYS, "bench", "teacher.1", "teacher@teacher.0", "method"]
    with pytest.raises(ConfigError) as raised:
        compose([f"{key}={value}" for key in keys])
    lines = raised.value.errors
    assert [key for key in keys if not any(one.startswith(f"{key}=: empty") for one in lines)] == []


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("distill", ["teacher="]),  # of finetune alone
        ("finetune", ["seed="]),
        ("analyze", ["experiment="]),
        ("analyze", ["out="]),
        ("export", ["since=", "out=x.db.xz"]),
        ("compare", ["a", "b", "experiment="]),
        ("evaluate", ["run=x", "bench="]),
        ("sync", ["runtime.store="]),
        ("distill", ["-m", "seed=0,1", "hydra.launcher.jobs_parallel="]),
        ("distill", ["hydra/launcher=submitit_slurm", "hydra.launcher.partition="]),
    ],
)
def test_no_verb_takes_an_empty_value(
    verb: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb, *words]) == 2
    assert "empty" in capsys.readouterr().err


def test_no_study_takes_an_empty_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(["beta", "trials=2", "teacher.0.ckpt="]) == 2
    assert "teacher.0.ckpt=: empty (null: none)" in capsys.readouterr().err


def test_a_declared_parameter_arrives_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRY_RUN", "0")
    monkeypatch.chdir(tmp_path)
    store = f"runtime.store={tmp_path}"
    assert main(["distill", "cfg=", "bench=", "seed=", store, "--dry-run"]) == 0


@pytest.mark.parametrize("key", PATHS)
def test_the_home_folder(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").touch()
    config = compose(["bench=digits_all", f"{key}=~/x"])
    found = {
        "data.root": config.data.root,
        "runtime.store": config.runtime.store,
        "teacher.0.ckpt": config.teacher["0"].ckpt,
    }
    assert found[key] == os.path.join(tmp_path, "x")
    with pytest.raises(ConfigError, match="no such user"):
        compose([f"{key}=~nobody_of_that_name/x"])


@pytest.mark.parametrize("verb", ["analyze", "export", "compare"])
def test_the_home_folder_in_options_of_verbs(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    words = {"compare": ["a", "b", "store=~/none.db"], "export": ["out=~/file/x.db.xz"]}
    assert main([verb, *words.get(verb, ["out=~/file"])]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("value", ["/w/a,b", "[a,b]", "range(1,3)", "a'b", "${nope}", "x${oc.env:"])
@pytest.mark.parametrize("key", ["runtime.store", "runtime.experiment", "data.root"])
def test_text_is_neither_swept_nor_read(key: str, value: str) -> None:
    assert is_literal(key)
    assert expand([f"{key}={value}", "seed=0,1"]) == [
        (f"{key}={value}", "seed=0"),
        (f"{key}={value}", "seed=1"),
    ]
    group, name = key.split(".")
    assert getattr(getattr(compose([f"{key}={value}"]), group), name) == value


def test_an_option_of_the_command_itself_has_one_value() -> None:
    with pytest.raises(ConfigError, match="one value for all runs of a command"):
        multirun.read(["runtime.threads=1,2", "seed=0,1"])


def test_names_are_swept() -> None:
    assert not is_literal("student.model")
    assert len(expand(["student.model=resnet8,resnet20", "cfg=L0,L1"])) == 4
