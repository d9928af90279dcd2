"""The fault harness by hand: python -m tests.faults points=10 seed=0 command=distill fault=kill

Every fault of files at some points of each command, then wrong answers of a tracking server. Prints
a table, and leaves the folders of cases that were not survived. `points` is for each kind.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.harness import ANSWERS, COMMANDS, HEADER, Harness, cases, environment
from tests.faulty_server import FaultyServer, copy_schema


def main(words: list[str]) -> int:
    """Run the cases; 1 if anything was lost or doubled, or a command never ended well."""
    given = dict(word.split("=", 1) for word in words)
    points, seed = int(given.get("points", 10)), int(given.get("seed", 0))
    environment()
    from mlflow import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    schema = folder / "schema.db"
    MlflowClient(f"sqlite:///{schema}").search_experiments()
    harness, failed = Harness(folder / "files", schema, seed), 0
    wanted = [
        pair
        for pair in [*cases(), *((name, how) for name in COMMANDS for how in ANSWERS)]
        if given.get("command", pair[0]) == pair[0] and given.get("fault", pair[1]) == pair[1]
    ]
    print(HEADER, flush=True)
    with pytest.MonkeyPatch.context() as patch:
        server = FaultyServer(copy_schema(schema, folder / "server"), patch)
        for name, kind in wanted:
            if kind in ANSWERS:
                row = harness.answers(name, kind, points, server)
            else:
                row = harness.files(name, kind, points)
            failed += row.tried - row.survived
            print(row, flush=True)
        server.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
