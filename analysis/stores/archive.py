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

SUFFIX = ".db.xz"
_NOT_OF_THE_STUDY = ("mlflow.user", "mlflow.source.", "mlflow.log-model.")  # tags of one machine
_PLACES = ("runtime.store", "data.root")  # parameters that are paths of one machine
_PLACE = re.compile(rf" ?({'|'.join(map(re.escape, _PLACES))})=[^\s`]+")
_PARENT, _TIME = "mlflow.parentRunId", 0


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
    try:
        base.deserialize(lzma.decompress(Path(path).read_bytes()))
        there = {name for (name,) in base.execute("SELECT name FROM sqlite_master")}
    except (lzma.LZMAError, EOFError, sqlite3.DatabaseError) as error:
        raise ValueError(f"{path}: damaged, or not made by export: {error}") from error
    if absent := COLUMNS.keys() - there:
        raise ValueError(f"{path}: not made by export: it has no {', '.join(sorted(absent))}")
    return SqlStore(create_engine("sqlite://", creator=lambda: base, poolclass=StaticPool))


def _fill(base: sqlite3.Connection, name: str, rows: Iterable[tuple]) -> None:
    extra = ("experiment_id", "lifecycle_stage") if name == "runs" else ()
    columns = (*COLUMNS[name], *extra)
    base.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
    base.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)


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
