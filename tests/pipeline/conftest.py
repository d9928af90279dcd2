"""Commands in the process of the tests."""

import signal
from collections.abc import Iterator

import pytest

from pipeline.session import STOP_SIGNALS


@pytest.fixture
def signals() -> Iterator[None]:
    """The signal handlers are restored after commands that take them over."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
