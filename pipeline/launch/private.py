"""Folders of jobs that no other user can write to: they hold the commands that jobs run."""

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
        ConfigError: it is a link, belongs to another user, or others can write to it.
    """
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid():
        raise ConfigError(
            [f"{folder}: belongs to user {found.st_uid}, so no job is run in it; move it away"]
        )
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError([f"{folder}: is a link, so no job is run in it; move it away"])
    if found.st_mode & _OTHERS_WRITE:
        raise ConfigError(
            [f"{folder}: others can write to it, so no job is run in it; chmod go-w {folder}"]
        )
