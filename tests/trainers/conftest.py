"""Session-wide pieces that are costly to make; no test may change them."""

from collections.abc import Iterator

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.tiny import Run, World


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and lose much on busy machines."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world() -> World:
    return tiny.make_world()


@pytest.fixture(scope="session")
def two_stages(world: World) -> dict[str, Run]:
    """One whole run of each kind over two stages, without interruption; to compare with."""
    return {name: tiny.run(tiny.rung(name, *tiny.TWO_STAGES), world) for name in ("CE", "L2", "L3")}
