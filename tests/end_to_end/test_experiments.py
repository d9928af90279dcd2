"""Experiments by name, run from CIFAR-100 files in their real format with the smallest networks of
timm, and scaled down on digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import command
from tests.end_to_end.test_benches import NETS, SMALL
from tests.trainers.data import files

# One of each problem; the experiments `ablation_*` are the rungs of asib_2025_08.
PROBLEMS = {
    "seed_ablation": [],
    "sota_scenario_a": [],
    "overlap_100": [],
    "overlap_0": ["method=kd"],
    "sota_mobilenet_v2": ["method=dkd"],
}
RUNGS = ("CE", "L0", "L1", "L2", "L3", "L4", "side_cccp_ppf", "side_asib_cccp")
# Networks and sizes of a small run, without the options of one method.
TINY = [option for option in (*NETS, *SMALL) if not option.startswith("method.")]


@pytest.fixture
def images(clean: Path) -> str:
    root = clean / "images"
    root.mkdir()
    files.write_cifar(root, "cifar100")
    return f"data.root={root}"


@pytest.mark.thorough
@pytest.mark.parametrize("name", PROBLEMS)
def test_an_experiment_runs_from_files_in_the_real_format(
    name: str, images: str, clean: Path
) -> None:
    words = (f"experiment={name}", *PROBLEMS[name], images, *TINY, "numerics=float32")
    assert "[CFG] " in command.run("distill", *words, cwd=clean)
    (result,) = command.results(clean).values()
    assert 0 <= result["metrics"]["test/top1"] <= 1
    assert len(command.results(clean, "finetune")) == 2


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "rungs"), [("asib_2025_08", RUNGS), ("asib_stage", ("L1", "L4"))])
def test_rungs_of_a_recipe_run(name: str, rungs: tuple[str, ...], images: str, clean: Path) -> None:
    for rung in rungs:
        words = (f"experiment={name}", f"cfg={rung}", images, *TINY, "numerics=float32")
        output = command.run("distill", *words, cwd=clean)
        assert output.count("[CFG] kd_target=") == 1
    assert len(command.results(clean)) == len(rungs)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["asib_2025_08", "asib_stage"])
def test_a_recipe_scales_to_digits(name: str, clean: Path) -> None:
    words = (f"+experiment={name}", "budget=digits", "cfg=L4", *command.TINY)
    output = command.run("distill", *words, cwd=clean)
    (line,) = [line for line in output.splitlines() if line.startswith("[CFG]")]
    assert line == "[CFG] kd_target=auto ce=0.70 kd=0.30 ib_beta=1e-3"


@pytest.mark.thorough
def test_main_finetune_and_a_list_of_teachers(clean: Path) -> None:
    """The verbs that compose take an experiment; teachers that no bench names are fine-tuned."""
    small = ("experiment=overlap_0", "budget=digits", *command.TINY)
    command.run("main", *small, "cfg=KD", cwd=clean)
    assert len(command.results(clean)) == 2  # the student is one of the controls
    names = "teacher=resnet20,resnet8,resnet20"
    third = ("teacher.2.recipe.epochs=1", "teacher.2.seed=5")
    command.run("finetune", names, *command.TINY, *third, cwd=clean)
    assert len(command.results(clean, "finetune")) == 5  # two of half of the classes
