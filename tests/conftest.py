"""Every test starts without MLflow's variables, with threads that sleep while they wait, and
without the data set of Debian's package: what passes here passes on a new machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faulty_server import FaultyServer

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[_name]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session", autouse=True)
def _no_debian_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide Debian's Fashion-MNIST from the tests of this process and from what it forks."""
    from trainers.data import fashion_mnist

    fashion_mnist.DEBIAN_FASHION = Path(tmp_path_factory.mktemp("absent")) / "fashion-mnist"


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite tracking store: making its schema takes longer than a tiny run."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def faulty(schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A tracking server in this process with an empty store, whose answers can be spoiled."""
    from tests.faulty_server import FaultyServer, copy_schema

    found = FaultyServer(copy_schema(schema, tmp_path / "server"), monkeypatch)
    yield found
    found.stop()
