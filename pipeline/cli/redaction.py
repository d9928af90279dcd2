"""Output without credentials: what a command prints or logs is cleared of those it was given."""

from __future__ import annotations

import sys
from typing import Any, TextIO, cast

from analysis.stores.address import given_credentials, hidden


class _Clean:
    """A text stream that hides the credentials of the environment."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hidden(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hide_credentials() -> None:
    """From now on standard output and error hide the credentials of the environment, if any."""
    if not given_credentials():
        return
    from pipeline.cli.console import out

    sys.stdout, sys.stderr = _clean(sys.stdout), _clean(sys.stderr)
    if out._file is not None:  # a log file of a job
        out.file = _clean(cast(TextIO, out._file))


def _clean(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, _Clean) else cast(TextIO, _Clean(stream))
