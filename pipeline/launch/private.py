"""Folders of jobs that no other user can write to: what a job leaves there is a pickle, and reading
a pickle runs whatever its writer wanted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.config import ConfigError
from pipeline.storage.atomic import make_folder

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> None:
    """Make a folder that this user alone can enter, or check one that is there.

    Raises:
        ConfigError: it belongs to another user, or others can write to it.
    """
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700)
    check_private(folder)


def check_private(folder: Path, file: Path | None = None) -> None:
    """Check a folder, and a file in it, before the file is unpickled.

    Raises:
        ConfigError: one belongs to another user, or others can write to the folder.
    """
    for path in (folder, file) if file is not None else (folder,):
        found = path.lstat()
        if found.st_uid != os.getuid():
            raise ConfigError(
                [f"{path}: belongs to user {found.st_uid}, so its jobs are not read; move it away"]
            )
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError([f"{path}: is a link, so it is not read; move it away"])
    if folder.stat().st_mode & _OTHERS_WRITE:
        raise ConfigError(
            [f"{folder}: others can write to it, so it is not read; chmod go-w {folder}"]
        )
