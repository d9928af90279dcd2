"""Jobs are submitted from folders of this user alone."""

import os
from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.launch.private import make_private


def test_a_new_folder_is_private_and_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "jobs"
    make_private(folder)
    make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod go-w"):
        make_private(tmp_path)


def test_a_folder_of_another_user_and_a_link_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        make_private(tmp_path / "link")
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(ConfigError, match=f"belongs to user {me}"):
        make_private(tmp_path)
