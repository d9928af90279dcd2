"""docs/tutorial.md, run block by block in an empty folder, at a tiny size."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end import command

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```bash\n((?:[^`\n].*\n)+)```\n\n```text\n((?:.*\n)+?)```$", re.M)
NUMBER = re.compile(r"[−+-]?\d[\d.,:]*")
LEFT_OUT = "…"
TRAINING = ("distill", "beta_grid")
TINY = ("method.token_dim=16", "method.heads=2", *command.TINY[1:])  # on the default bench


class Block(NamedTuple):
    """Commands, and what the page shows of their output."""

    commands: list[str]
    shown: list[str]


BLOCKS = [
    Block(commands.splitlines(), shown.splitlines())
    for commands, shown in BLOCK.findall(PAGE.read_text(encoding="utf-8"))
]


@pytest.mark.thorough
def test_the_blocks_print_what_the_page_shows(tmp_path: Path) -> None:
    """One test of all blocks: each continues from the blocks before it."""
    assert len(BLOCKS) > 5
    for block in BLOCKS:
        output = "".join(run(line, tmp_path) for line in block.commands)
        printed = [shape(line) for line in output.splitlines()]
        for line in block.shown:
            start = shape(line.partition(LEFT_OUT)[0])
            if start:
                found = [one for one in printed if one == start or LEFT_OUT in line]
                assert any(one.startswith(start) for one in found), f"{line}\nis not in\n{output}"


def run(line: str, folder: Path) -> str:
    """The output of a command; `timeout` ends it in its first epoch."""
    words = shlex.split(line)
    start = words.index("python")
    module, (program, verb, *rest) = words[start + 1], words[start + 2 :]
    assert module == "-m"
    tiny = TINY if verb in TRAINING else ()
    if words[0] != "timeout":
        return command.run(verb, *rest, *tiny, cwd=folder, program=program)
    code, output = command.interrupt(
        verb, *rest, *tiny, cwd=folder, after=" 1/", delay=0, number=signal.SIGINT
    )
    assert code == 75, output
    return output


def shape(line: str) -> str:
    """A line without its numbers and keys, and with single spaces."""
    keyless = re.sub(r"\b[0-9a-f]{12}\b|(?<=-)[0-9a-f]{8}\b", "KEY", line)
    return " ".join(NUMBER.sub("N", keyless).split())
