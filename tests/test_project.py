"""Facts that hold over files: locked versions, who reads the test split, the values in conf/."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import VERBS
from pipeline.config import ConfigError, compose
from pipeline.config.groups import CONF, options_of
from sweeps.study_file import read_study
from trainers.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeps", "pipeline", "trainers", "analysis")


def test_readme_installs_the_locked_version() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    (locked,) = re.findall(r"^mlflow==(\S+)$", lock, re.M)
    assert set(re.findall(r"mlflow==([\d.]+)", (ROOT / "README.md").read_text())) == {locked}


def test_lock_holds_names_and_versions_only_and_all_of_the_project() -> None:
    """A marker may say for which Python or platform a line is."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.partition(" ; ")[0] for line in lines]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)
    assert not re.search(r"@|//", "".join(lines))
    locked = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    direct = {re.split(r"[\[>=]", line)[0].lower() for line in wanted}
    assert direct <= locked


def test_conda_and_mlproject_use_the_lock() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert "python=3.11" in conda["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in conda["dependencies"]
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert project["conda_env"] == "conda.yaml"
    assert {"main", "finetune", "distill", "evaluate", "analyze", "sweep", "test"} <= set(
        project["entry_points"]
    )


def test_only_the_finalise_step_reads_test_images() -> None:
    """`.test` of a data set is touched in finalise.py, and its digest where digests are made."""
    found = set()
    files = [
        p for package in ("sweeps", "pipeline", "trainers") for p in (ROOT / package).rglob("*.py")
    ]
    for path in files:
        tree = ast.parse(path.read_text())
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and node.attr == "test"):
                continue
            above = parents[node]
            digest = isinstance(above, ast.Attribute) and above.attr == "digest"
            called = isinstance(above, ast.Call) and above.func is node  # Job.test(weights)
            if not digest and not called:
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {"pipeline/stages/test_split.py"}


def test_no_silent_except() -> None:
    for path in [p for package in PACKAGES for p in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: bare except"


VALIDATED = [name for name in options_of("bench") if not name.startswith("literature_")]
FEW = ("digits", "fashion_mnist_few")  # with unlabelled images, which two placebos do not take
NEED_LABELS = ("KD_null", "L2_null_class")


BENCHES_OF_THE_TEST_COMMAND = ("digits_all", "cifar100")


@pytest.mark.parametrize("rung", options_of("cfg"))
@pytest.mark.parametrize(
    "bench",
    [
        pytest.param(
            name, marks=[] if name in BENCHES_OF_THE_TEST_COMMAND else pytest.mark.thorough
        )
        for name in VALIDATED
    ],
)
def test_every_rung_composes_on_every_bench(rung: str, bench: str) -> None:
    words = [f"cfg={rung}", f"bench={bench}"]
    if rung in NEED_LABELS and bench in FEW:
        with pytest.raises(ConfigError, match="needs the label of every image"):
            compose(words)
        return
    config = compose(words)
    assert (config.rung, config.bench.name) == (rung, bench)


@pytest.mark.parametrize("bench", sorted(set(options_of("bench")) - set(VALIDATED)))
def test_a_bench_without_validation_has_no_gate(bench: str) -> None:
    for method in sorted(set(METHODS) - {"asib"}):
        assert compose([f"method={method}", f"bench={bench}"]).bench.name == bench
    with pytest.raises(ConfigError, match="gate reads synergy accuracy on validation images"):
        compose(["cfg=L0", f"bench={bench}"])


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(CONF).as_posix() for p in CONF.glob("*/*.yaml"))
)
def test_every_yaml_composes(path: str) -> None:
    group, name = path.removesuffix(".yaml").split("/", 1)
    if group == "study":  # not a group of a run: tests/sweeps reads them
        assert read_study(name)
        return
    key = "teacher@teacher.1" if group == "teacher" else group
    gated = name not in options_of("bench") or name in VALIDATED
    labels = ["bench=digits_all"] if name in NEED_LABELS else []
    compose([f"{key}={name}", *labels, *([] if gated else ["cfg=CE"])])


def test_a_config_error_lists_all_errors_once() -> None:
    with pytest.raises(ConfigError) as raised:
        compose(["a=1", "seed=x", "method.heads=0", "optim.lr=-1", "data.mean=[1,2]"])
    text = str(raised.value)
    assert "5 errors" in text
    for part in ("a: no such option", "seed=x", "method.heads=0", "optim.lr=-1", "data.mean"):
        assert text.count(part) == 1


def test_the_project_for_docker_has_the_entry_points_of_the_other() -> None:
    ours = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    docker = yaml.safe_load((ROOT / "docker" / "MLproject").read_text())
    text = yaml.safe_dump({k: v for k, v in ours.items() if k not in ("test", "check")})
    text = text.replace("python -m pipeline", "asib").replace("python -m sweeps", "asib sweep")
    assert docker["entry_points"] == yaml.safe_load(text)
    assert docker["docker_env"]["image"] == "asib"
    made = (ROOT / "docker" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", made, re.M)
    assert all((ROOT / name).exists() for name in copied)
    site = yaml.safe_load((ROOT / "docker" / "site.yaml").read_text())
    assert [f"asib-store:{site['store']}"] == docker["docker_env"]["volumes"]


def test_every_verb_is_an_entry_point() -> None:
    entries = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert {*VERBS, "sweep"} <= set(entries)
