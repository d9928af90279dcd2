"""Every test starts without MLflow's variables, with threads that sleep while they wait, and
without the data set of Debian's package: what passes here passes on a new machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.faulty_server import FaultyServer

# Many interpreters are started: each would compile the sources of torch and MLflow again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[_name]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(autouse=True)
def _no_store_is_left_chosen() -> Iterator[None]:
    """MLflow hands its choice of a store on to every process that is started later."""
    yield
    if "MLFLOW_TRACKING_URI" in os.environ:
        import mlflow

        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session", autouse=True)
def _no_debian_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide Debian's Fashion-MNIST from the tests of this process and from what it forks."""
    from trainers.data import fashion_mnist

    fashion_mnist.DEBIAN_FASHION = Path(tmp_path_factory.mktemp("absent")) / "fashion-mnist"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable], Path]:
    """A folder that one worker fills and all workers read: `made_once(name, fill)`."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock", timeout=300):
            if not done.exists():
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def schema(made_once: Callable[[str, Callable], Path]) -> Path:
    """An empty SQLite tracking store: making its schema takes longer than a tiny run."""

    def fill(folder: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()

    return made_once("schema", fill) / "mlflow.db"


@pytest.fixture
def faulty(schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A tracking server in this process with an empty store, whose answers can be spoiled."""
    from tests.faulty_server import FaultyServer, copy_schema

    found = FaultyServer(copy_schema(schema, tmp_path / "server"), monkeypatch)
    yield found
    found.stop()


@pytest.fixture
def signals() -> Iterator[None]:
    """The signal handlers are restored after commands that take them over."""
    from pipeline.session import STOP_SIGNALS  # takes torch

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
