"""A folder of options of the user's own: searched before conf/, by every reader of options."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.arguments import without_config_dir
from pipeline.cli.environment import with_lasting_store
from pipeline.config import ConfigError, compose, composition, hydra_files
from pipeline.config.groups import CONF, OWN, described, options_of
from pipeline.config.sources import sources
from pipeline.identity import same_experiment
from pipeline.launch.options import SlurmConfig, take_options
from sweeps.study_file import study_of


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    composition._data_of.cache_clear()
    files = {
        "bench/mine.yaml": (CONF / "bench/digits.yaml")
        .read_text()
        .replace("name: digits", "name: mine")
        .replace("scikit-learn's digits", "My images"),
        "optim/adamw.yaml": "name: adamw\nlr: 1e-3\nweight_decay: 0.125\n",
        "study/mine.yaml": "base: [cfg=L1]\nspace: {method.ib_beta: [0.0, 0.5]}\nseeds: [3]\n",
        "runtime/site.yaml": "store: /scratch/me\nthreads: 3\n",
        "hydra/launcher/submitit_slurm.yaml": "partition: mine\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv(OWN, str(tmp_path))
    yield tmp_path
    composition._data_of.cache_clear()


def test_its_names_are_offered_with_their_descriptions(own: Path) -> None:
    assert {"mine", "digits"} <= set(options_of("bench"))
    assert described("bench")["mine"].startswith("My images")


def test_a_bench_of_it_is_composed_from_groups_of_both(own: Path) -> None:
    config = compose(["bench=mine", "cfg=L2"])
    assert (config.bench.name, config.data.name) == ("mine", "digits")
    where = sources(["bench=mine", "cfg=L2"])
    assert where["bench.name"] == str(own / "bench/mine.yaml")
    assert where["method.num_stages"].startswith("conf/")


def test_its_file_stands_in_for_one_of_conf(own: Path) -> None:
    assert compose(["bench=digits"]).optim.weight_decay == 0.125


def test_a_study_of_it_and_a_launcher_that_holds_only_what_differs(own: Path) -> None:
    study = study_of("mine", {}, [])
    assert (study.seeds, list(study.space)) == ((3,), ["method.ib_beta"])
    launcher, _, errors = take_options(["hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=7"])
    assert isinstance(launcher, SlurmConfig)
    assert (launcher.partition, launcher.mem_gb, errors) == ("mine", 7, [])


def test_an_absent_folder_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN, str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=f"ASIB_CONF={tmp_path}/absent: no such folder"):
        compose([])


@pytest.mark.parametrize("words", [["--config-dir", "x"], ["--config-dir=x"], ["-cd", "x"]])
def test_the_flag_sets_the_folder_for_the_process_and_its_jobs(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(OWN, "")
    monkeypatch.chdir(tmp_path)
    assert without_config_dir(["distill", *words, "seed=1"]) == ["distill", "seed=1"]
    assert os.environ[OWN] == str(tmp_path / "x")


def test_the_defaults_of_a_site_hold_for_all_commands_and_change_no_key(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = compose([]).runtime
    assert (runtime.store, runtime.threads) == ("/scratch/me", 3)
    assert sources([])["runtime.threads"] == str(own / "runtime/site.yaml")
    assert compose(["runtime.threads=2", "~runtime.store"]).runtime.threads == 2
    assert compose(["~runtime.store"]).runtime.store == "store"
    here = same_experiment("distill", compose(["optim=sgd"]))
    monkeypatch.delenv(OWN)
    assert compose([]).runtime.threads is None
    assert same_experiment("distill", compose(["optim=sgd"])) == here


def test_the_word_off_needs_no_quotes_in_a_file(own: Path) -> None:
    """YAML reads it as false."""
    (own / "runtime/site.yaml").write_text("graph: off\n")
    assert compose([]).runtime.graph == "off"


def test_a_copy_of_the_project_uses_the_store_of_the_site(own: Path) -> None:
    copy = Path(tempfile.gettempdir()) / "tmpabcdefgh"
    environment = {"MLFLOW_RUN_ID": "1", OWN: str(own)}
    assert with_lasting_store(["seed=1"], environment, copy) == ["seed=1"]
    (own / "runtime/site.yaml").write_text("threads: 3\n")
    assert len(with_lasting_store(["seed=1"], environment, copy)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("thread: 3\n", "did you mean runtime.threads"), ("threads: [\n", "site.yaml, line 2")],
)
def test_an_error_in_the_defaults_of_a_site(own: Path, text: str, message: str) -> None:
    (own / "runtime/site.yaml").write_text(text)
    hydra_files.of_groups.cache_clear()
    try:
        with pytest.raises(ConfigError, match=message):
            compose(["seed=11"])
    finally:
        hydra_files.of_groups.cache_clear()
