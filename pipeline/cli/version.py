"""The version of this program: of the checkout that runs, or of the installed package."""

from __future__ import annotations

import tomllib
from importlib import metadata

from pipeline.config.groups import CONF

NAME = "asib"
_PROJECT = CONF.parent / "pyproject.toml"  # a wheel has none


def is_checkout() -> bool:
    """Whether the code that runs is a checkout, and not an installed package."""
    return _PROJECT.is_file()


def version() -> str:
    """The version as a number, such as 0.1.0."""
    if is_checkout():
        return str(tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version(NAME)
