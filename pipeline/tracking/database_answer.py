"""Answer of a database of tracking, found without opening it through MLflow."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from analysis.stores.address import redacted
from pipeline.tracking.answer import PATIENCE_S, Acceptance, Target, away, of_experiment, refused
from pipeline.tracking.database import schema_fault, sqlite_file

# What a database answers where waiting does not help; the rest (starting up, …) is an outage.
_REFUSED = re.compile(
    r"authentication failed|access denied|does not exist|unknown database|no pg_hba|password"
    r"|does not support SSL|unable to open database file|not a database|readonly|permission denied",
    re.I,
)


def of_database(target: Target) -> Acceptance:
    file = sqlite_file(target.uri)
    if file is not None and (fault := _file_fault(file)):
        return refused(target, fault)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return of_experiment(target, None)
    try:
        fault, found = _rows(target)
    except _reasons() as error:
        return _database_error(target, error)
    return refused(target, fault) if fault else of_experiment(target, found)


def _reasons() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, ImportError, ValueError)


def _database_error(target: Target, error: Exception) -> Acceptance:
    reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
    if isinstance(error, ImportError):
        name = "psycopg[binary]" if target.uri.startswith("postgresql:") else error.name
        return refused(target, f"its driver is not installed: pip install '{name}'")
    from sqlalchemy.exc import DatabaseError

    if not isinstance(error, DatabaseError) or _REFUSED.search(str(error.orig)):
        return refused(target, f"it cannot be opened: {reason}")
    return away(target, f"cannot be reached ({reason})")


def _file_fault(file: Path) -> str | None:
    """Why a SQLite file cannot be used, judged by the file system."""
    if file.is_dir():
        return f"{file} is a folder: add a file name, {file}/mlflow.db"
    place = file if file.exists() else file.parent
    if not place.exists():
        return f"the folder {place} is absent: make it, or name another"
    if not os.access(place, os.W_OK) or not os.access(file.parent, os.W_OK):
        return f"{place} is read-only for you: its owner can let you write, or name another"
    return None


def _rows(target: Target) -> tuple[str | None, dict[str, Any] | None]:
    """(what is wrong with the schema, the experiment's row)."""
    from sqlalchemy import column, create_engine, inspect, select, table
    from sqlalchemy.pool import NullPool

    local = {"connect_timeout": PATIENCE_S} if target.uri.startswith("postgresql") else {}
    engine = create_engine(target.uri, poolclass=NullPool, connect_args=local)
    with engine.connect() as base:
        tables = set(inspect(base).get_table_names())
        version = table("alembic_version", column("version_num"))
        stored = "alembic_version" in tables
        revision = base.execute(select(version)).scalar() if stored else None
        fault = schema_fault(tables, revision, redacted(target.uri))
        if fault or "experiments" not in tables:
            return fault, None
        names = ("experiment_id", "name", "lifecycle_stage", "artifact_location")
        rows = table("experiments", *map(column, names))
        number = target.experiment.removeprefix("#")
        wanted = rows.c.name == target.experiment
        if number != target.experiment:
            wanted = rows.c.experiment_id == (int(number) if number.isdecimal() else -1)
        found = base.execute(select(rows).where(wanted)).mappings().first()
        return None, None if found is None else dict(found)
