"""One artifact root: what is in it, and whether that is what it should be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.storage.atomic import sha256
from pipeline.tracking.creation import BadAnswer


class Artifacts:
    """One artifact root; `read`: compare contents also where they have to be downloaded."""

    def __init__(self, root: str, uri: str, *, read: bool = False) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not root:
            raise BadAnswer("the run has no artifact store")
        self.repository: Any = get_artifact_repository(root, tracking_uri=uri)
        self._here, self._read = local_folder(root), read

    def sizes(self, folder: str | None = None) -> dict[str, int]:
        """The size of every file in a folder."""
        listed = self.repository.list_artifacts(folder)
        return {one.path: one.file_size or 0 for one in listed if not one.is_dir}

    def tree(self, folder: str | None = None) -> dict[str, int]:
        """The size of every file in a folder and those below."""
        found = dict[str, int]()
        for one in self.repository.list_artifacts(folder):
            found |= self.tree(one.path) if one.is_dir else {one.path: one.file_size or 0}
        return found

    def is_same(self, path: str, size: int, digest: str, found: dict[str, int]) -> bool:
        """Whether a listed file is the one of this size and sha256."""
        if found.get(path) != size:
            return False
        return all(sha256(file) == digest for file in self.contents(path))

    def contents(self, path: str) -> Iterator[Path]:
        """A file to read, where it may be read: none or one."""
        if self._here is not None:
            yield self._here / path
        elif self._read:
            with tempfile.TemporaryDirectory() as scratch:
                yield Path(self.repository.download_artifacts(path, scratch))


def local_folder(root: str) -> Path | None:
    """The folder of an artifact root on this machine; None for another kind of store."""
    parts = urlsplit(root)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
