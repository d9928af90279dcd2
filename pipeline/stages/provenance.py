"""Where a run's code and packages come from: git revision, dirty flag, diff, versions."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata

from pipeline.cli import version
from pipeline.config.groups import CONF

PACKAGES = ("torch", "torchvision", "timm", "mlflow", "hydra-core", "numpy", "safetensors")


@cache
def git_revision() -> str:
    """The revision, with "-dirty" where tracked files differ; "asib==0.1.0" of an installed
    package; "none" of a checkout without git's history."""
    if not version.is_checkout():  # its folder may be inside a repository of the user's
        return f"{version.NAME}=={version.version()}"
    revision = _git("rev-parse", "HEAD")
    if revision is None:
        return "none"
    return revision.strip() + ("-dirty" if git_diff() else "")


@cache
def git_diff() -> str:
    """The difference of tracked files to the revision."""
    return (_git("diff", "HEAD") or "") if version.is_checkout() else ""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(CONF.parent), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
