"""Folders of jobs that no other user can write to: what is in one, a job runs."""

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
        ConfigError: it is a link or belongs to another user, or others can write to it.
    """
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        what = "is a link" if stat.S_ISLNK(found.st_mode) else f"belongs to user {found.st_uid}"
        raise ConfigError([f"{folder}: {what}, so no job is submitted from it; move it away"])
    if found.st_mode & _OTHERS_WRITE:
        raise ConfigError([f"{folder}: others can write to it; chmod go-w {folder}"])
