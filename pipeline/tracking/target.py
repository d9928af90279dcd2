"""Tracking target: the MLflow store, the experiment in it, and the launch run.

`mlflow run` opens a project run and passes its id by environment. That run is the launch, and every
stage run is its child. Without `mlflow run` the command opens a launch of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import tags
from pipeline.storage.lease import acquire
from pipeline.tracking.database import make_sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Inherited by every process that this one starts; a job must never write into another's run.
_INHERITED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
# Without these a call to a server that is away blocks for minutes.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass
class TrackingTarget:
    """A tracking store, an experiment, and the launch that stage runs belong to."""

    uri: str
    experiment: str  # its name, or "#" and its id
    launch_id: str | None
    verb: str
    lock_folder: Path
    command: str = field(default_factory=lambda: secrets.token_hex(6))  # which call of the verb
    own_launch: bool = False
    _client: MlflowClient | None = field(default=None, repr=False)
    _experiment_id: str | None = None

    @classmethod
    def from_environment(cls, verb: str, experiment: str | None, store: Path) -> TrackingTarget:
        """The target that MLflow's variables name; those that child processes must not inherit are
        removed."""
        quiet_mlflow()
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        inherited = {name: os.environ.pop(name, None) for name in _INHERITED}
        number = inherited["MLFLOW_EXPERIMENT_ID"]
        chosen = experiment or inherited["MLFLOW_EXPERIMENT_NAME"] or (number and f"#{number}")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        return cls(
            absolute(uri),
            chosen or tags.DEFAULT_EXPERIMENT,
            inherited["MLFLOW_RUN_ID"],
            verb,
            store / "tracking",
        )

    @property
    def key(self) -> str:
        """A short name of the store and experiment for file names; no address, no password."""
        return hashlib.sha256(f"{self.uri}|{self.experiment}".encode()).hexdigest()[:12]

    def client(self) -> MlflowClient:
        """A client of the store; on a fresh SQLite file the schema is made by one process only.

        Raises:
            Exception: whatever MLflow raises when the store cannot be reached.
        """
        if self._client is None:
            from mlflow import MlflowClient

            def opened(uri: str) -> MlflowClient:
                client = MlflowClient(tracking_uri=uri)  # this may make the schema already
                client.search_experiments(max_results=1)
                return client

            with acquire(self.lock_folder, poll_s=0.05):
                make_sqlite(self.uri, opened)
                self._client = opened(self.uri)
        return self._client

    def experiment_name(self) -> str:
        """The experiment's name, looked up in the store where its id was given."""
        if not self.experiment.startswith("#"):
            return self.experiment
        return str(self.client().get_experiment(self.experiment[1:]).name)

    def experiment_id(self) -> str:
        """The experiment's id; the experiment is made if missing."""
        if self.experiment.startswith("#"):
            return self.experiment[1:]
        if self._experiment_id is None:
            name, client = self.experiment, self.client()
            with acquire(self.lock_folder, poll_s=0.05):
                found = client.get_experiment_by_name(name)
                self._experiment_id = (
                    found.experiment_id if found else client.create_experiment(name)
                )
        return self._experiment_id

    def parent_id(self) -> str:
        """The launch run; one of our own is opened where `mlflow run` gave none."""
        if self.launch_id is None:
            run_tags = {tags.STAGE: "launch"}
            run = self.client().create_run(
                self.experiment_id(), tags=run_tags, run_name=f"launch-{self.verb}"
            )
            self.launch_id, self.own_launch = run.info.run_id, True
        return self.launch_id

    def end_launch(self, status: str, run_tags: Mapping[str, str]) -> None:
        """End the launch run that this process opened (`mlflow run` ends its own), with tags."""
        if self.own_launch and self.launch_id is not None:
            for key, text in run_tags.items():
                self.client().set_tag(self.launch_id, key, text)
            self.client().set_terminated(self.launch_id, status)


def absolute(uri: str) -> str:
    """A SQLite address made independent of the working directory; others as they are."""
    relative = re.fullmatch(r"sqlite:///([^/].*)", uri)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else uri


def quiet_mlflow() -> None:
    """Suppress MLflow's messages on schema migrations, the environment and each run that ends."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    noisy = ("alembic", "mlflow.store.db.utils", "mlflow.utils.environment", "mlflow.tracking")
    for name in (*noisy, "urllib3"):  # its retries are reported here
        logging.getLogger(name).setLevel(logging.ERROR)
