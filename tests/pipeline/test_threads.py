"""How threads wait is set before torch is loaded, by every command, and as the user says."""

import os
import subprocess
import sys

import pytest

from pipeline import SPINS

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
RUN = """
import os, runpy, sys

class AtTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(*(os.environ.get(key) for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, AtTorch())
name, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def _at_torch(*command: str, **environment: str) -> list[str]:
    """Both variables when the command loads torch."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "command",
    [
        ("pipeline", "distill", "cfg=CE", "--dry-run"),
        ("pipeline", "distill", "-m", "seed=0,1", "--dry-run"),
        ("sweeps", "beta", "--dry-run"),
        ("benchmarks.step", "--quick"),
    ],
    ids=" ".join,
)
def test_threads_spin_for_a_moment(command: tuple[str, ...]) -> None:
    assert _at_torch(*command) == ["PASSIVE", SPINS]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"GOMP_SPINCOUNT": "7"}, ["None", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
    ],
)
def test_what_the_user_sets_stays(given: dict[str, str], found: list[str]) -> None:
    assert _at_torch("pipeline", "distill", "cfg=CE", "--dry-run", **given) == found
