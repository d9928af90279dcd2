"""A study to give away: an experiment's runs and histories in one small file.

The file is a SQLite database with those tables and columns of MLflow's schema that are read back,
packed by xz: params, tags, last values, and the requested histories, without weights.
Times of single values are left out. Nothing in it is run by reading it.
"""

import lzma
import math
import re
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from analysis.stores.protocol import Experiment, RunRows
from analysis.stores.sql import COLUMNS, SqlStore
from analysis.words import printable

SUFFIX = ".db.xz"
_NOT_OF_THE_STUDY = ("mlflow.user", "mlflow.source.", "mlflow.log-model.")  # tags of one machine
_PLACES = ("runtime.store", "data.root")  # parameters that are paths of one machine
_PLACE = re.compile(rf" ?({'|'.join(map(re.escape, _PLACES))})=[^\s`]+")
_PARENT, _TIME = "mlflow.parentRunId", 0
MOST_BYTES = 1 << 29  # that an export unpacks to
_MOST_MEMORY = 1 << 27  # of unpacking itself: twice what the strongest preset takes
# Of another's file: nothing in its schema is run, nothing is written, and pages are checked.
_DEFENCES = ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON")
_TEXT, _INTEGER, _NUMBER = "'text'", "'integer'", "'real', 'integer'"
_KINDS = {
    "experiments": {"experiment_id": _INTEGER, "name": _TEXT, "lifecycle_stage": _TEXT},
    "runs": {
        "run_uuid": _TEXT,
        "name": "'text', 'null'",
        "status": _TEXT,
        "start_time": "'integer', 'null'",
        "end_time": "'integer', 'null'",
        "experiment_id": _INTEGER,
    },
    "params": {"run_uuid": _TEXT, "key": _TEXT, "value": _TEXT},
    "tags": {"run_uuid": _TEXT, "key": _TEXT, "value": _TEXT},
    "latest_metrics": {"run_uuid": _TEXT, "key": _TEXT, "value": _NUMBER, "is_nan": _INTEGER},
    "metrics": {
        "run_uuid": _TEXT,
        "key": _TEXT,
        "step": _INTEGER,
        "value": _NUMBER,
        "timestamp": _INTEGER,
        "is_nan": _INTEGER,
    },
}


def packed(experiment: Experiment, runs: RunRows, history: pd.DataFrame) -> bytes:
    """The file of an experiment with these runs and these points (`load_history`'s columns). A
    parent that is not among the runs is left out."""
    base = sqlite3.connect(":memory:")
    number, ids = int(experiment.experiment_id), {info.run_id for info in runs.infos}
    _fill(base, "experiments", [(number, experiment.name, "active")])
    _fill(base, "runs", [(*info, number, "active") for info in runs.infos])
    params = [(run, key, _moved(value)) for run, key, value in runs.params if key not in _PLACES]
    tags = [(run, key, _moved(v)) for run, key, v in runs.tags if _belongs(key, v, ids)]
    _fill(base, "params", params)
    _fill(base, "tags", tags)
    last = [(run, key, *_number(value)) for run, key, value in runs.metrics]
    _fill(base, "latest_metrics", last)
    columns = [history[name] for name in ("run_id", "metric", "step", "value")]
    points = (
        (run, metric, int(step), value, _TIME, is_nan)
        for run, metric, step, one in zip(*columns, strict=True)
        for value, is_nan in [_number(float(one))]
    )
    _fill(base, "metrics", points)
    base.commit()
    base.execute("VACUUM")
    return lzma.compress(base.serialize(), preset=9 | lzma.PRESET_EXTREME)


def opened(path: str) -> SqlStore:
    """The store in a file that `packed` made.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    if not Path(path).is_file():
        found = "it is a folder" if Path(path).is_dir() else "there is no such file"
        raise ValueError(f"no exported store at {path}: {found}")
    base = sqlite3.connect(":memory:", check_same_thread=False)
    base.text_factory = lambda text: printable(text.decode(errors="replace"))
    try:
        base.deserialize(_unpacked(Path(path)))
        for setting in _DEFENCES:
            base.execute(f"PRAGMA {setting}")
        _check(base)
    except (lzma.LZMAError, EOFError, OSError, MemoryError, sqlite3.Error) as error:
        raise ValueError(f"{path}: damaged, or not made by export: {error}") from error
    return SqlStore(create_engine("sqlite://", creator=lambda: base, poolclass=StaticPool))


def _unpacked(path: Path) -> bytes:
    """What a file unpacks to. Raises LZMAError, EOFError for what is no file of this kind, or
    unpacks to more than any export."""
    unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
    found = unpacking.decompress(path.read_bytes(), max_length=MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise lzma.LZMAError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
    if not unpacking.eof or unpacking.unused_data:
        raise EOFError("it is cut short, or there is more in it than an export")
    return found


def _check(base: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError unless a database is whole and has the tables of an export and
    nothing else: no views, triggers, indices or computed columns."""
    there = dict(base.execute("SELECT name, sql FROM sqlite_master").fetchall())
    if absent := COLUMNS.keys() - there.keys():
        raise sqlite3.DatabaseError(f"it has no {', '.join(sorted(absent))}")
    other = [name for name in there if there[name] != _TABLES.get(name)]
    if other:
        raise sqlite3.DatabaseError(f"{other[0]!r:.80} is no table as export makes it")
    (found,) = base.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found).splitlines()[-1][:200])
    for name, kinds in _KINDS.items():
        for column, allowed in kinds.items():
            wrong = f"SELECT typeof({column}) FROM {name} WHERE typeof({column}) NOT IN ({allowed})"
            if (one := base.execute(f"{wrong} LIMIT 1").fetchone()) is not None:
                raise sqlite3.DatabaseError(f"{name}.{column} has a value of type {one[0]}")
    (experiments,) = base.execute("SELECT count(*) FROM experiments").fetchone()
    if experiments != 1:
        raise sqlite3.DatabaseError(f"it has {experiments} experiments, not one")
    (twice,) = base.execute("SELECT count(*) - count(DISTINCT run_uuid) FROM runs").fetchone()
    if twice:
        raise sqlite3.DatabaseError("a run is in it twice")


def _fill(base: sqlite3.Connection, name: str, rows: Iterable[tuple]) -> None:
    base.execute(_TABLES[name])
    places = ", ".join("?" * len(_columns(name)))
    base.executemany(f"INSERT INTO {name} VALUES ({places})", rows)


def _columns(name: str) -> tuple[str, ...]:
    extra = ("experiment_id", "lifecycle_stage") if name == "runs" else ()
    return (*COLUMNS[name], *extra)


_TABLES = {name: f"CREATE TABLE {name} ({', '.join(_columns(name))})" for name in COLUMNS}


def _belongs(key: str, value: str, ids: set[str]) -> bool:
    return value in ids if key == _PARENT else not key.startswith(_NOT_OF_THE_STUDY)


def _moved(text: str) -> str:
    """The given options without paths of this machine."""
    return _PLACE.sub("", text)


def _number(value: float) -> tuple[float, bool]:
    """A value as MLflow keeps it: (what is finite, whether it is no number)."""
    if math.isnan(value):
        return 0.0, True
    return max(-sys.float_info.max, min(sys.float_info.max, value)), False
