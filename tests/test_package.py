"""The wheel: it has everything that the commands need, and they run from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.config.groups import CONF
from tests.end_to_end.command import TINY

ROOT = CONF.parent
PACKAGES = ("analysis", "pipeline", "sweeps", "trainers")
PLUGIN = "hydra_plugins/asib_launcher.py"
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
ASIB = "from sweeps.__main__ import asib; asib()"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip makes it of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def _asib(site: Path, cwd: Path, *words: str) -> str:
    """The output of the command `asib` in a folder that knows nothing of this checkout."""
    done = subprocess.run(
        [sys.executable, "-c", ASIB, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_every_module_and_every_file_of_conf(unpacked: Path) -> None:
    for package in PACKAGES:
        names = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert names
        missing = {name for name in names if not (unpacked / name).is_file()}
        assert not missing
        assert (unpacked / package / "py.typed").is_file()
    assert (unpacked / PLUGIN).is_file()
    files = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    assert files == {
        path.relative_to(unpacked / "pipeline/conf")
        for path in (unpacked / "pipeline/conf").rglob("*.yaml")
    }
    assert not (unpacked / "tests").exists()


def test_the_command_is_both_programs(unpacked: Path, tmp_path: Path) -> None:
    (entry,) = unpacked.glob("asib-*.dist-info/entry_points.txt")
    assert "asib = sweeps.__main__:asib" in entry.read_text()
    assert _asib(unpacked, tmp_path, "--version").startswith("asib ")
    assert "python -m pipeline VERB" in _asib(unpacked, tmp_path, "--help")
    assert "python -m sweeps STUDY" in _asib(unpacked, tmp_path, "sweep", "--help")


@pytest.mark.thorough
def test_a_run_and_a_plan_of_a_study(unpacked: Path, tmp_path: Path) -> None:
    """In a folder inside somebody else's repository: its revision is not taken for ours."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    tiny = (*TINY, "runtime.device=cpu")
    output = _asib(unpacked, tmp_path, "distill", "cfg=CE", *tiny)
    assert "finished distill-CE-digits_all-s0" in output
    table = _asib(unpacked, tmp_path, "analyze")
    assert "CE" in table
    (spec,) = (tmp_path / "store/runs/distill").glob("*/spec.json")
    assert '"asib==' in spec.read_text()
    plan = _asib(unpacked, tmp_path, "sweep", "ladder", "seeds=0", *tiny, "--dry-run")
    assert "distill-L4-digits_all-s0" in plan
