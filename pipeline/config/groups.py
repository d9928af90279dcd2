"""What conf/ offers: its groups, their names, and what a rung or a bench chooses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = ("bench", "budget", "cfg", "data", "method", "numerics", "optim", "student", "teacher")


def options_of(group: str) -> list[str]:
    """The names that a group of conf/ offers."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def data_of(bench: str) -> str | None:
    """The data set that a bench of conf/bench chooses; None where there is no such bench."""
    path = CONF / "bench" / f"{bench}.yaml"
    if not path.is_file():
        return None
    parts = OmegaConf.load(path).defaults
    return next((str(part["override /data"]) for part in parts if "override /data" in part), None)


@cache
def method_of(cfg: str) -> str:
    """The method that a rung of conf/cfg chooses."""
    defaults = OmegaConf.load(CONF / "cfg" / f"{cfg}.yaml").defaults
    return str(next(part["override /method"] for part in defaults if "override /method" in part))
