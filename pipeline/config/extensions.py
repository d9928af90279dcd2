"""Methods, networks and data sets from outside the project.

A module that is named by ASIB_EXTEND (several: with commas), or by an installed package's entry
point of the group `asib.extensions`, is imported before anything is composed. It adds its parts to
the registries: `METHODS`, `ARCHITECTURES`, `DATASETS`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipeline.config.errors import ConfigError

EXTEND = "ASIB_EXTEND"
GROUP = "asib.extensions"
_OURS = "trainers"


@cache
def load() -> tuple[str, ...]:
    """Import the modules of extensions, once a process; their names.

    Raises:
        ConfigError: a module cannot be found or imported.
    """
    given = [name for name in os.environ.get(EXTEND, "").split(",") if name]
    names = [*given, *(entry.value for entry in entry_points(group=GROUP))]
    here = os.getcwd()
    if given and here not in sys.path:  # an installed command does not look there by itself
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            where = f"{EXTEND}={name}" if name in given else f"extension {name}"
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError([f"{where}: cannot be imported: {reason}"]) from error
    return tuple(names)


def sources(*parts: Any) -> list[str]:
    """sha256 of the source file of each part (a class or a function) that is not the project's
    own, sorted: part of a run's key, so that a changed method is another experiment."""
    plain = [getattr(part, "func", part) for part in parts]  # of a partial
    outside = [part for part in plain if part.__module__.split(".")[0] != _OURS]
    files = {Path(inspect.getfile(part)) for part in outside}
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
