"""Every test starts without MLflow's variables, with threads that sleep while they wait, and
without the data set of Debian's package: what passes here passes on a new machine."""

import os
from pathlib import Path

import pytest

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
