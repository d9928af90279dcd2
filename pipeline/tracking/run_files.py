"""Files of a run in the artifact store: texts, weights and the MLflow model of a student.

What is there is compared with the run folder before anything is sent: names and sizes, and the
content too where the artifact store is a folder of this machine, or where that is asked for.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.storage.atomic import CorruptFile, sha256
from pipeline.storage.run_record import RunResult, RunSpec
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.artifacts import Artifacts
from pipeline.tracking.restore import SPEC_FILE, WEIGHTS, file_name
from pipeline.tracking.target import TrackingTarget

ModelFiles = Mapping[str, tuple[int, str | None]]  # by path: size, and sha256 but of the archive
MODEL_FILES = ("MLmodel", "data/model.pt2")  # without which a student's model cannot be loaded


class RunFiles:
    """The files of one run, which is `run` in the tracking store."""

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        target: TrackingTarget,
        run: Any,
        *,
        model: ModelFiles | None = None,
        read: bool = False,
    ) -> None:
        self.folder, self.spec, self.target, self.run = folder, spec, target, run
        self.model = model or {}
        self._artifacts = Artifacts(run.info.artifact_uri, target.uri, read=read)
        self._read = read

    def lacking(self, result: RunResult | None, *, log_model: bool) -> list[str]:
        """The names of files that are absent or differ from the run folder; `model` for the
        MLflow model."""
        weights = self._weights(result) if result is not None else []
        model = result is not None and log_model and self._model_is_due(result)
        return [*self._texts(), *(path.name for path in weights), *(["model"] if model else [])]

    def send_texts(self) -> None:
        """Send the texts that are lacking."""
        if lacking := self._texts():
            with tempfile.TemporaryDirectory() as scratch:
                for name, data in lacking.items():
                    Path(scratch, name).write_bytes(data)
                self._artifacts.repository.log_artifacts(scratch)

    def send(self, result: RunResult, step: int, *, log_model: bool) -> None:
        """Send all files that are lacking; `step` is that of the metrics which the model has.

        Raises:
            CorruptFile: the run folder has lost its weights, and the artifact store too.
        """
        self.send_texts()
        for path in self._weights(result):
            self._artifacts.repository.log_artifact(str(path), WEIGHTS)
        if log_model and self._model_is_due(result):
            from pipeline.tracking.model_export import log_student

            run_id = self.run.info.run_id
            root = log_student(self.folder, self.spec, result, self.target, run_id, step)
            self.model = self._model_files(root)

    def _texts(self) -> dict[str, bytes]:
        """The texts that are lacking."""
        body = {key: value for key, value in self.spec.to_json().items() if key != "texts"}
        texts = self.spec.texts | {SPEC_FILE: json.dumps(body, indent=2)}
        found = self._artifacts.sizes()
        wanted = {name: text.encode() for name, text in texts.items()}
        return {
            name: data
            for name, data in wanted.items()
            if not self._artifacts.is_same(name, len(data), sha256(data), found)
        }

    def _weights(self, result: RunResult) -> list[Path]:
        """The files of weights that are lacking."""
        found, faults = self._artifacts.sizes(WEIGHTS), self.folder.weights_faults(result)
        lacking = []
        for name, digest in result.weights.items():
            logged = f"{WEIGHTS}/{file_name(name, digest)}"
            if fault := faults.get(name):
                if logged in found:  # the only place that may have them
                    continue
                raise CorruptFile(fault)
            path = self.folder.tensors_path(name, digest)
            if not self._artifacts.is_same(logged, path.stat().st_size, digest, found):
                lacking.append(path)
        return lacking

    def _model_is_due(self, result: RunResult) -> bool:
        if "student" not in result.weights:
            return False
        from pipeline.tracking.model_export import linked_models

        models = linked_models(self.target, self.run, result)
        return not any(self._is_whole(model.artifact_location) for model in models)

    def _is_whole(self, root: str) -> bool:
        """Whether a model is as it was logged. Its archive has checksums of its own; of a model of
        an older version, no more is known than that it can be loaded."""
        artifacts = Artifacts(root, self.target.uri, read=self._read)
        found = artifacts.tree()
        return (
            all(found.get(name) for name in MODEL_FILES)
            and all(
                found.get(path) == size
                if digest is None
                else artifacts.is_same(path, size, digest, found)
                for path, (size, digest) in self.model.items()
            )
            and all(_is_intact(file) for file in artifacts.contents(MODEL_FILES[1]))
        )

    def _model_files(self, root: str) -> ModelFiles:
        """The files of a model that has just been logged. MLflow has made them: no other copy is
        kept, and its archive is not downloaded."""
        artifacts = Artifacts(root, self.target.uri, read=True)
        sizes = artifacts.tree()
        return {
            path: (size, None if path == MODEL_FILES[1] else _digest(artifacts, path))
            for path, size in sizes.items()
        }


def _digest(artifacts: Artifacts, path: str) -> str:
    (digest,) = [sha256(file) for file in artifacts.contents(path)]
    return digest


def _is_intact(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile):
        return False
