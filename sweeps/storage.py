"""Optuna storage of a study: a journal file in its folder, or a database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import get_lock_file
from sqlalchemy.exc import SQLAlchemyError

from analysis.stores.address import hidden, redacted
from pipeline.config import ConfigError

VARIABLE = "ASIB_STUDY_STORAGE"  # an RDB address; it may hold a password: never written
JOURNAL = "journal.log"


def storage(folder: Path) -> BaseStorage:
    """The storage of the study of this folder.

    Raises:
        ConfigError: the database of ASIB_STUDY_STORAGE cannot be opened.
    """
    address = os.environ.get(VARIABLE)
    if not address:
        return JournalStorage(Journal(folder / JOURNAL))
    try:
        return RDBStorage(address)
    except (SQLAlchemyError, ImportError, RuntimeError) as error:  # RuntimeError: its schema
        reason = hidden(str(error).splitlines()[0])
        raise ConfigError([f"{VARIABLE}={redacted(address)}: cannot be opened: {reason}"]) from None


def where(folder: Path) -> str:
    """The address of the storage for messages and optuna-dashboard, without its password."""
    address = os.environ.get(VARIABLE)
    return redacted(address) if address else str(folder / JOURNAL)


class Journal(JournalFileBackend):
    """A journal file that survives a writer killed within a line, or a full disk: the incomplete
    line is removed before the next one is written, and readers never see it."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, JournalFileOpenLock(str(path))
        super().__init__(str(path), lock_obj=self.lock)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The entries from this number on; ConfigError where a line is damaged."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise ConfigError(
                [
                    f"{self.path}: damaged ({error}). Move it away and run the same command "
                    "again: finished runs are in the store, and trials of the same configuration "
                    "reuse their values"
                ]
            ) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with get_lock_file(self.lock):
            self._end_whole()
        super().append_logs(logs)

    def _end_whole(self) -> None:
        with self.path.open("r+b") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end > 0 and _byte(file, end - 1) != b"\n":
                end -= 1
            if end < size:
                file.truncate(end)


def _byte(file: Any, at: int) -> bytes:
    file.seek(at)
    return bytes(file.read(1))
