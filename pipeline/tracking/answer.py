"""Answer of a tracking store that was asked whether it accepts us, as a kind and one sentence."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from analysis.stores.address import redacted

ACCEPTS, AWAY, REFUSES = "accepts", "away", "refuses"
VARIABLE = "MLFLOW_TRACKING_URI"
PATIENCE_S = 5  # for each question
_DRIVERS = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
    "hdfs": ("pyarrow", "pyarrow"),
    "sftp": ("pysftp", "pysftp"),
}


class Target(Protocol):
    """The address of a tracking store, and an experiment by its name, or by its id as `#ID`."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class Acceptance:
    """The answer of a tracking store, with one sentence of what is wrong and what to give."""

    kind: str  # accepts | away | refuses
    sentence: str = ""
    artifacts: str = ""  # why it takes no files, where it takes everything else


def refused(target: Target, reason: str) -> Acceptance:
    return Acceptance(REFUSES, f"{VARIABLE}={redacted(target.uri)}: {reason}")


def away(target: Target, reason: str) -> Acceptance:
    return Acceptance(AWAY, f"the tracking store {redacted(target.uri)} {reason}")


def of_experiment(target: Target, found: dict[str, Any] | None) -> Acceptance:
    """The answer where the store is all right, by the experiment: its name, id, lifecycle stage
    and artifact location."""
    name = target.experiment.removeprefix("#")
    given = f"MLFLOW_EXPERIMENT_ID={name}" if target.experiment != name else f"experiment {name}"
    if found is None and target.experiment != name:
        return Acceptance(
            REFUSES,
            f"{given}: no such experiment in {redacted(target.uri)}; give another id, or a name: "
            "runtime.experiment=NAME",
        )
    if found is None:
        return Acceptance(ACCEPTS)  # made when the first run is sent
    if found["lifecycle_stage"] == "deleted":
        return Acceptance(
            REFUSES,
            f"{given}: deleted; `mlflow experiments restore --experiment-id "
            f"{found['experiment_id']}` restores it, runtime.experiment=NAME names another",
        )
    return Acceptance(ACCEPTS, artifacts=artifact_fault(found.get("artifact_location") or ""))


def artifact_fault(root: str) -> str:
    """Why no file can be stored under an artifact root, empty where nothing is known against it.
    Its service is not asked."""
    parts = urlsplit(root)
    if parts.scheme in _DRIVERS:
        module, package = _DRIVERS[parts.scheme]
        if _is_installed(module):
            return ""
        return f"the artifact store {redacted(root)} needs a package: pip install {package}"
    if not root or parts.scheme not in ("", "file"):
        return ""
    folder = Path(unquote(parts.path))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return (
            f"the artifact store {root} cannot be written to from here ({folder}: "
            f"{error.strerror}); a server started with --artifacts-destination takes the files of "
            "new experiments itself"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it is in
        return False
