"""Pickles of jobs are read from folders of this user alone."""

import os
from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.launch.private import check_private, make_private


def test_a_new_folder_is_private_and_its_files_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "jobs"
    make_private(folder)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    file = folder / "0_result.pkl"
    file.touch()
    check_private(folder, file)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    for use in (make_private, check_private):
        with pytest.raises(ConfigError, match="chmod go-w"):
            use(tmp_path)


def test_files_of_another_user_and_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="is a link"):
        check_private(tmp_path, tmp_path / "link")
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(ConfigError, match=f"belongs to user {me}"):
        check_private(tmp_path)
