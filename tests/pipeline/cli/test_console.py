"""What is printed where there is no terminal."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "width"), [({}, 100), ({"COLUMNS": "140"}, 140)])
def test_a_pipe_is_as_wide_as_the_tables_unless_it_is_said_otherwise(
    given: dict[str, str], width: int
) -> None:
    """Rich takes 80 columns there, and cuts what tells two rows apart."""
    code = "from pipeline.cli.console import out; print(out.width)"
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == width
