"""Ctrl-C before a command has begun and after its end, in processes of their own."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.outcome import print_anywhere

CTRL_C = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
PIPELINE = "from pipeline import __main__ as verbs; verbs.VERBS['sync'] = 'interrupted:run'"
SWEEPS = "from sweeps import __main__ as verbs; verbs.RUN_STUDY = 'interrupted'"


@pytest.mark.parametrize(
    "code",
    [
        f"{PIPELINE}; verbs.main(['sync'])",
        f"{SWEEPS}; verbs.main(['beta'])",
        f"{SWEEPS}; verbs.main(['work', 'beta'])",
        f"from pipeline.outcome import *; end_process(exit_code_of(lambda: exec({CTRL_C!r})))",
    ],
    ids=["import of a verb", "import of a study", "import of a worker", "code in a string"],
)
def test_ctrl_c_ends_with_one_line(code: str, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(CTRL_C)
    # A shell lets what it runs in the background ignore Ctrl-C: these are in the foreground.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import sys; sys.path.append({str(tmp_path)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout == "interrupted; run the same command to resume\n"


def test_ctrl_c_while_the_process_ends_changes_nothing() -> None:
    code = f"import atexit; atexit.register(lambda: exec({CTRL_C!r}))"
    code += "; from pipeline.outcome import *; end_process(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_log_that_is_not_utf8_gets_replacement_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_anywhere()
    print("β 100 %")
    sys.stdout.flush()
    assert raw.getvalue() == b"? 100 %\n"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("exit_code_of(lambda: [print('row', flush=True) for _ in range(9)])", 1),
        ("exit_code_of(lambda: [say('epoch') for _ in range(9)])", 0),
    ],
    ids=["a report is not printed to its end", "a run continues"],
)
def test_output_whose_reader_has_ended_is_no_traceback(code: str, exit_code: int) -> None:
    """As in `python -m pipeline analyze | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    code = f"from pipeline.outcome import *; from pipeline.cli.console import say; x = {code}"
    command = [sys.executable, "-c", f"{code}; end_process(x)"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (exit_code, "")
