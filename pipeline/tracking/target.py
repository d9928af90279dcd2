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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import tags
from analysis.stores.address import redacted
from pipeline.storage.lease import Lease, acquire, try_acquire
from pipeline.tracking.acceptance import DATABASE_SERVERS, acceptance
from pipeline.tracking.answer import AWAY
from pipeline.tracking.creation import BadAnswer
from pipeline.tracking.database import make_sqlite
from pipeline.tracking.plain_runs import FOLDER, LAUNCH_STAGE, PlainRun, read
from pipeline.tracking.plain_upload import PlainUpload
from trainers import metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Inherited by every process that this one starts; a job must never write into another's run.
_INHERITED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
NOT_CHOSEN = "0"  # id of the experiment `Default`
LAUNCH = "ASIB_LAUNCH"  # variable: verb and command whose launch run a job joins
LAUNCHED_BY = "ASIB_LAUNCHED_BY"  # variable: options of the launcher that started a job
CARRIED = (metrics.TEST_TOP1, metrics.BEST_VAL_TOP1, metrics.RUN_SECONDS)
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
    joined: bool = False  # the launch is that of the command which started this one as a job
    project_run: str | None = None  # the run that `mlflow run` opened
    register: str | None = None  # name in the model registry that students are registered under
    launcher: str = ""  # options of the launcher that runs the jobs of the command, as given
    numbers: dict[str, float] = field(default_factory=dict)  # metrics of the launch run
    _record: PlainRun | None = field(default=None, repr=False, init=False)
    _lease: Lease | None = field(default=None, repr=False, init=False)
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
        number, run_id = inherited["MLFLOW_EXPERIMENT_ID"], inherited["MLFLOW_RUN_ID"]
        chosen = experiment or named_experiment(inherited)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        # `mlflow run` opened its run in another experiment: a launch of our own is in this one.
        elsewhere = number is not None and (number == NOT_CHOSEN or experiment is not None)
        of_job, _, command = os.environ.pop(LAUNCH, "").partition(":")
        found = cls(
            absolute(uri),
            chosen or tags.DEFAULT_EXPERIMENT,
            None if elsewhere else run_id,
            of_job or verb,
            store / "tracking",
            project_run=run_id,
            joined=bool(command),
            launcher=os.environ.pop(LAUNCHED_BY, ""),
        )
        found.command = command or found.command
        return found

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

            # MLflow tries a database server again for nearly two minutes: too long for one call.
            if self.uri.startswith(DATABASE_SERVERS) and acceptance(self).kind == AWAY:
                raise ConnectionError(f"{redacted(self.uri)}: no answer")
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
            client = self.client()  # under the same lock
            with acquire(self.lock_folder, poll_s=0.05):
                self._experiment_id = self._experiment_of_name(client)
        return self._experiment_id

    def _experiment_of_name(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        name = self.experiment
        if client.get_experiment_by_name(name) is None:
            try:
                client.create_experiment(name)
            except MlflowException:  # made by another, or by this request, whose answer was lost
                if client.get_experiment_by_name(name) is None:
                    raise
        found = client.get_experiment_by_name(name)
        if found is None or found.name != name or not found.experiment_id:
            raise BadAnswer("something else than the tracking store has answered (a gateway?)")
        return str(found.experiment_id)

    def parent_id(self) -> str:
        """The launch run; one of our own is opened where `mlflow run` gave none."""
        if self.launch_id is None:
            self.begin()
            record = self._record or self._launch()
            self.launch_id = self.opened(record)
            if self._record is not None:
                self._record.save()
        return self.launch_id

    def begin(self) -> None:
        """A record of a launch run that this process opens, now or when the store is there, for
        `sync` to end it where this process cannot."""
        if self._record is None and self.launch_id is None and not self.joined:
            new = self._launch()
            self._record = read(new.file) or new
            self._record.status = None
            self._hold(self._record)
            self._record.save()

    def _launch(self) -> PlainRun:
        run = self.plain_run(LAUNCH_STAGE, self.experiment)
        run.name = f"launch-{self.verb}"
        if self.project_run is not None:
            run.tags["project_run"] = self.project_run
        return run

    @property
    def own_launch(self) -> bool:
        """Whether this process ends the launch run."""
        return self._record is not None

    def continue_launch(self, run_id: str | None, command: str) -> None:
        """Take over the launch run that a call of this verb has left."""
        self.command = command or self.command
        self.begin()
        if run_id is not None and self._record is not None:
            self.launch_id = self._record.run_id = run_id

    def plain_run(self, stage: str, experiment: str) -> PlainRun:
        """The record, not saved yet, of a run that this command makes."""
        folder, where = self.lock_folder / FOLDER / self.command, redacted(self.uri)
        return PlainRun(str(folder), where, experiment, self.verb, self.command, stage)

    def _hold(self, record: PlainRun) -> None:
        self._lease = self._lease or try_acquire(record.lease_folder)

    def created(
        self,
        run_tags: Mapping[str, str],
        name: str,
        experiment_id: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> PlainRun:
        """The run of these tags that this command makes, once: a repeated call gives the same run.
        `sync` ends it where this process cannot."""
        record = self.plain_run(run_tags[tags.STAGE], self._name_of(experiment_id))
        record.name, record.tags = name, {**run_tags}
        record.parent = record.tags.pop(tags.PARENT, None)
        record.params = {key: str(value) for key, value in (params or {}).items()}
        record.data = {**(data or {})}
        self._hold(record)
        record.save()
        self.opened(record)
        record.save()
        return record

    def opened(self, record: PlainRun) -> str:
        """The id in the store of a run that this process works on."""
        upload = self.upload(record)
        with acquire(self.lock_folder, poll_s=0.05):
            return upload.begin()

    def _name_of(self, experiment_id: str | None) -> str:
        if experiment_id in (None, self.experiment_id()):
            return self.experiment
        return str(self.client().get_experiment(experiment_id).name)

    def elsewhere(self, experiment: str) -> TrackingTarget:
        """The same store, and another experiment, without a launch."""
        return replace(self, experiment=experiment, launch_id=None, numbers={}, _experiment_id=None)

    def upload(self, record: PlainRun) -> PlainUpload:
        """The upload of a run without a run folder."""
        at = self if record.experiment == self.experiment else self.elsewhere(record.experiment)
        return PlainUpload(record, self.client(), at.experiment_id())

    def ended(self, record: PlainRun, status: str, run_tags: Mapping[str, str]) -> None:
        """End a run that this command has created, with tags; `sync` does so where this fails."""
        record.ended(status, run_tags)
        record.save()  # before it is sent, which may fail
        self.upload(record).send()
        record.save()

    def carry(self, prefix: str, values: Mapping[str, float]) -> None:
        """Give the launch run the final metrics of a student, to be sent at its end."""
        self.numbers |= {
            f"{prefix}/{name}": values[name] for name in CARRIED if values.get(name) is not None
        }

    def end_launch(self, status: str, run_tags: Mapping[str, str]) -> None:
        """Send the numbers of the launch run and, where this process opened it (`mlflow run` ends
        its own), end it, with tags."""
        try:
            if self._record is None:
                self._send_numbers()
            else:
                self._record.numbers = dict(self.numbers)
                self._record.ended(status, run_tags)
                self._record.save()  # before it is sent, which may fail
                self.parent_id()
                self.ended(self._record, status, run_tags)
        finally:
            self.leave_launch()

    def leave_launch(self) -> None:
        """Leave the launch run as it is."""
        if self._lease is not None:
            self._lease.release()
            if self._record is not None and self._record.status is None:
                self._record.remove()  # left on purpose
        self._record = self._lease = None

    def _send_numbers(self) -> None:
        """To the launch run that another command, or `mlflow run`, has opened."""
        if self.launch_id is None:
            return
        client = self.client()
        for name, value in self.numbers.items():
            client.log_metric(self.launch_id, name, value, step=0)


def named_experiment(environment: Mapping[str, str | None]) -> str | None:
    """The experiment that MLflow's variables choose: its name, or "#" and its id. `mlflow run`
    without an experiment sets the id of `Default`, which chooses none."""
    if name := environment.get("MLFLOW_EXPERIMENT_NAME"):
        return name
    number = environment.get("MLFLOW_EXPERIMENT_ID")
    return f"#{number}" if number and number != NOT_CHOSEN else None


def absolute(uri: str) -> str:
    """A SQLite address made independent of the working directory; others as they are."""
    relative = re.fullmatch(r"sqlite:///([^/].*)", uri)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else uri


def quiet_mlflow() -> None:
    """Suppress MLflow's messages on schema migrations, the environment and each run that ends."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    noisy = (
        "alembic",
        "mlflow.store.db.utils",
        "mlflow.utils.environment",
        "mlflow.tracking",
        "mlflow.system_metrics",
    )
    for name in (*noisy, "urllib3"):  # its retries are reported here
        logging.getLogger(name).setLevel(logging.ERROR)
