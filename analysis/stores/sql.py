"""An MLflow store in a SQL database, read without MLflow: plain rows of its tables.

Nothing is written, made or migrated. MLflow's import and its object a value take longer than the
rows themselves.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Engine,
    Select,
    TableClause,
    column,
    create_engine,
    select,
    table,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from analysis.stores.address import hidden, redacted
from analysis.stores.protocol import Experiment, Points, RunInfo, RunRows

_SQLITE = "sqlite:///"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
_RUNS_A_QUERY = 10_000  # below the number of parameters that a statement may have
_ROWS_A_FETCH = 2_000  # tuples that are held at once: few enough for the processor's cache

COLUMNS = {
    "experiments": ("experiment_id", "name", "lifecycle_stage"),
    "runs": ("run_uuid", "name", "status", "start_time", "end_time"),
    "params": ("run_uuid", "key", "value"),
    "tags": ("run_uuid", "key", "value"),
    "latest_metrics": ("run_uuid", "key", "value", "is_nan"),
    "metrics": ("run_uuid", "key", "step", "value", "timestamp", "is_nan"),
}


class SqlStore:
    """The tables of a database; its methods are those of `analysis.stores.protocol.StoreReader`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def at(cls, uri: str) -> "SqlStore":
        """Raises ValueError where a SQLite file is not there (a connection would create it), and of
        an address that is none or needs a driver."""
        file = uri.removeprefix(_SQLITE).partition("?")[0]
        if uri.startswith(_SQLITE) and not Path(file).is_file():
            raise ValueError(f"no tracking store at {uri}: there is no file {file}")
        try:
            return cls(create_engine(uri, poolclass=NullPool))
        except (SQLAlchemyError, ImportError) as error:
            reason = hidden(str(error).splitlines()[0])
            raise ValueError(f"{redacted(uri)} cannot be opened: {reason}") from error

    def experiments(self) -> list[Experiment]:
        rows = self._all(_columns_of("experiments"))
        return [Experiment(str(number), name, stage == "active") for number, name, stage in rows]

    def runs(self, experiment_id: str) -> RunRows:
        found = table("runs", *map(column, ("experiment_id", "lifecycle_stage", *COLUMNS["runs"])))
        conditions = (
            found.c.experiment_id == int(experiment_id),
            found.c.lifecycle_stage == "active",
        )
        infos = self._all(
            select(*(found.c[name] for name in COLUMNS["runs"]))
            .where(*conditions)
            .order_by(found.c.start_time, found.c.run_uuid)
        )
        params, tags, metrics = (
            self._all(_of_runs(name, found, conditions))
            for name in ("params", "tags", "latest_metrics")
        )
        values = [(run, key, math.nan if is_nan else value) for run, key, value, is_nan in metrics]
        return RunRows([RunInfo(*row) for row in infos], params, tags, values)

    def points(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[Points]:
        # MLflow's index begins with the key: one pass over a metric, however many runs it is of.
        query = _columns_of("metrics")
        run, key = (query.selected_columns[name] for name in ("run_uuid", "key"))
        for start in range(0, len(run_ids), _RUNS_A_QUERY):
            conditions = run.in_(run_ids[start : start + _RUNS_A_QUERY]), key.in_(metrics)
            for rows in self._fetched(query.where(*conditions)):
                runs, keys, steps, values, times, is_nan = zip(*rows, strict=True)
                known = np.where(np.array(is_nan, dtype=bool), math.nan, np.array(values, float))
                yield Points(runs, keys, steps, known, times)  # type: ignore[arg-type]

    def _all(self, query: Select) -> list[tuple]:
        return [row for rows in self._fetched(query) for row in rows]

    def _fetched(self, query: Select) -> Iterator[list[tuple]]:
        """Raises ValueError where the database is damaged, no store of MLflow, or away."""
        try:
            with self._engine.connect() as base:
                # The driver's own tuples: SQLAlchemy's rows cost as much again.
                cursor = base.execute(query).cursor
                assert cursor is not None, "a SELECT has a cursor"
                while rows := cursor.fetchmany(_ROWS_A_FETCH):
                    yield list(rows)
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            address = redacted(self._engine.url.render_as_string(hide_password=False))
            reason = hidden(str(error).splitlines()[0])
            raise ValueError(f"{address} cannot be read as an MLflow store: {reason}") from error


def _columns_of(name: str) -> Select:
    found = table(name, *map(column, COLUMNS[name]))
    return select(*found.c)


def _of_runs(name: str, runs: TableClause, conditions: Sequence[ColumnElement[bool]]) -> Select:
    found = table(name, *map(column, COLUMNS[name]))
    return select(*found.c).join(runs, runs.c.run_uuid == found.c.run_uuid).where(*conditions)
