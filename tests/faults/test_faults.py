"""No fault loses or doubles anything: a few of each kind here, as many as wanted by
`python -m tests.faults points=N`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import ANSWERS, COMMANDS, Harness, cases, table
from tests.faulty_server import FaultyServer

POINTS = 3


@pytest.fixture(scope="module")
def harness(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(tmp_path_factory.mktemp("faults") / "all", schema)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "kind"), [("distill", "kill"), ("distill", "frozen"), ("sync", "ENOSPC")]
)
def test_a_few_faults_of_files(harness: Harness, name: str, kind: str) -> None:
    row = harness.files(name, kind, 1)
    assert (row.survived, row.lost, row.doubled) == (row.tried, 0, 0), table([row])


@pytest.mark.thorough
def test_a_lost_answer(harness: Harness, faulty: FaultyServer) -> None:
    row = harness.answers("distill", "after close", 1, faulty)
    assert (row.survived, row.lost, row.doubled) == (row.tried, 0, 0), table([row])


@pytest.mark.by_hand
@pytest.mark.faults
@pytest.mark.parametrize(("name", "kind"), list(cases()))
def test_no_fault_of_a_file_loses_or_doubles_anything(
    harness: Harness, name: str, kind: str
) -> None:
    row = harness.files(name, kind, POINTS)
    assert (row.survived, row.lost, row.doubled) == (row.tried, 0, 0), table([row])


@pytest.mark.by_hand
@pytest.mark.faults
@pytest.mark.parametrize("how", ANSWERS)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_answer_of_a_server_loses_or_doubles_anything(
    harness: Harness, faulty: FaultyServer, name: str, how: str
) -> None:
    row = harness.answers(name, how, POINTS, faulty)
    assert (row.survived, row.lost, row.doubled) == (row.tried, 0, 0), table([row])
