"""The groups of conf/ and of the user's own folder of options: names and descriptions."""

from __future__ import annotations

import os
from pathlib import Path

from analysis.suggest import nearest

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package; in a checkout it is next to it.
CONF = next(one / "conf" for one in (_PACKAGE, _PACKAGE.parent) if (one / "conf").is_dir())
GROUPS = (
    "bench",
    "budget",
    "cfg",
    "data",
    "experiment",
    "method",
    "numerics",
    "optim",
    "student",
    "teacher",
)


LAUNCHER = "hydra/launcher"  # the group that chooses how the jobs of a command are started


def launcher_words(overrides: list[str]) -> list[str]:
    """Those of the overrides that choose the launcher and its options."""
    short = LAUNCHER.rpartition("/")[2]  # as a study may write it
    named = [LAUNCHER + w[len(short) :] if w.startswith(f"{short}=") else w for w in overrides]
    own = (f"{LAUNCHER}=", "hydra.launcher.")
    return [word for word in named if word.lstrip("+").startswith(own)]


OWN = "ASIB_CONF"  # the user's own folder of options, which --config-dir names too


def folders() -> tuple[Path, ...]:
    """The folders of options: the user's own, if there is one, then conf/; the first that has a
    name decides."""
    own = os.environ.get(OWN)
    return (Path(own).expanduser().resolve(), CONF) if own else (CONF,)


def options_of(group: str) -> list[str]:
    """The names that a group offers; those of a subfolder begin with its name."""
    return sorted(
        {
            path.relative_to(folder / group).with_suffix("").as_posix()
            for folder in folders()
            for path in (folder / group).rglob("*.yaml")
        }
    )


def file_of(group: str, name: str) -> Path:
    """The file of a name of a group."""
    files = [folder / group / f"{name}.yaml" for folder in folders()]
    return next((path for path in files if path.is_file()), files[-1])


def described(group: str) -> dict[str, str]:
    """The names that a group offers, each with the first comment of its file."""
    return {name: first_comment(file_of(group, name)) for name in options_of(group)}


def unknown(group: str, name: str) -> str:
    """The error of a name that a group does not offer, with the nearest that it does; else ""."""
    names = options_of(group)
    return "" if name in names else f"{group}={name}: unknown{nearest(name, names, show_all=True)}"


def first_comment(path: Path) -> str:
    """The first comment of a YAML file that is no directive, its lines joined, without those that
    are commands; empty if none."""
    found: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @"):
            continue
        if not line.startswith("#"):
            break
        if not line.startswith("# python -m "):
            found.append(line.lstrip("# "))
    return " ".join(found)
