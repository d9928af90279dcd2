"""Output without a terminal."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "width"), [({}, 100), ({"COLUMNS": "140"}, 140)])
def test_a_pipe_is_as_wide_as_the_tables_unless_columns_is_set(
    given: dict[str, str], width: int
) -> None:
    """Rich takes 80 columns there, and cuts the ends of rows."""
    code = "from pipeline.cli.console import out; print(out.width)"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == width
