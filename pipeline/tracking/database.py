"""Schema of a tracking database: made in one step, and judged without opening it through MLflow."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SQLITE = "sqlite:///"
_REVISION = re.compile(r'^(down_revision|revision)(?:: .*?)? = "(\w+)"', re.M)


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite address; None for another kind of store."""
    if not uri.startswith(SQLITE):
        return None
    return Path(uri.removeprefix(SQLITE).partition("?")[0])


def make_sqlite(uri: str, open_store: Callable[[str], object]) -> None:
    """Make the schema where the file of a SQLite address is absent or empty, in one step: under
    another name, given the final name when it is whole. `open_store` makes it at an address.

    MLflow makes it in some 2,600 file operations. A process that is killed within them would leave
    a file that no later one can use.
    """
    file = sqlite_file(uri)
    if file is None or (file.is_file() and file.stat().st_size > 0):
        return
    for left in file.parent.glob(f".{file.name}.*.new*"):
        left.unlink(missing_ok=True)  # of a process that was killed here: the caller has the lock
    new = file.parent / f".{file.name}.{secrets.token_hex(4)}.new"
    open_store(f"{SQLITE}{new}")
    with new.open("rb") as written:
        os.fsync(written.fileno())
    new.replace(file)


def schema_fault(tables: set[str], revision: str | None, address: str) -> str | None:
    """What is wrong with the schema of a database, as a sentence; None where it can be used.

    `tables` are the names of its tables, `revision` is the one that its schema claims.
    """
    if not tables - {"alembic_version"}:
        return None  # a new one
    if "experiments" not in tables:
        return f"{address} is a database of something else: name another one"
    if revision is None:
        return (
            f"{address} was left half-made by a start that was killed, and no run is in it: "
            "move it away; the next command makes a new one, and `sync` sends what is missing"
        )
    known = revisions()
    if revision not in known:
        return (
            f"{address} was made by a newer MLflow (its schema {revision} is unknown here): "
            "install that version, or name another database"
        )
    if known[revision]:
        return (
            f"{address} has the schema of an older MLflow, or was left half-made: copy it, then "
            f"run `mlflow db upgrade {address}`; if it holds no runs yet, move it away instead"
        )
    return None


@cache
def revisions() -> dict[str, bool]:
    """The schema revisions that the installed MLflow knows, and whether each is outdated."""
    spec = find_spec("mlflow")  # its files alone: importing it takes seconds
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))]
    pairs = [pair for text in texts for pair in _REVISION.findall(text)]
    older = {name for kind, name in pairs if kind == "down_revision"}
    return {name: name in older for kind, name in pairs if kind == "revision"}
