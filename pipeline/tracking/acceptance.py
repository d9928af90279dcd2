"""Whether a tracking store accepts us: asked before anything is trained, and after a failed call.

A store that *refuses* (a wrong address, an unusable schema, a deleted experiment, missing rights)
does so until something is changed: what to change is one sentence. A store that is *away* (no
connection, an overloaded server, a gateway that answers in its place) is an outage, which costs
nothing: what it lacks is sent later. Nothing is made or changed by asking.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from analysis.stores.address import hidden, redacted
from pipeline.tracking.database import schema_fault, sqlite_file

ACCEPTS, AWAY, REFUSES = "accepts", "away", "refuses"
VARIABLE = "MLFLOW_TRACKING_URI"
FORMS = "sqlite:///PATH/mlflow.db, postgresql://…, mysql://… or http(s)://…"
PATIENCE_S = 5  # for each question
DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_DATABASES = ("sqlite", *DATABASE_SERVERS)
_SERVERS = ("http", "https")
_ROUTE = "/api/2.0/mlflow/experiments/"
# What a database answers where waiting does not help; the rest (starting up, …) is an outage.
_REFUSED = re.compile(
    r"authentication failed|access denied|does not exist|unknown database|no pg_hba|password"
    r"|does not support SSL|unable to open database file|not a database|readonly|permission denied",
    re.I,
)
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


def acceptance(target: Target) -> Acceptance:
    """Ask the tracking store of a target whether it takes runs of its experiment."""
    scheme = target.uri.partition(":")[0].partition("+")[0] if "://" in target.uri else ""
    if scheme in _DATABASES:
        answer = _database(target)
    elif scheme in _SERVERS:
        answer = _server(target)
    elif scheme and scheme != "file":
        answer = Acceptance(ACCEPTS)  # of a plug-in
    else:
        answer = _refused(target, f"MLflow keeps no runs in folders; give {FORMS}{_hint(target)}")
    return Acceptance(answer.kind, hidden(answer.sentence), hidden(answer.artifacts))


def _hint(target: Target) -> str:
    name = target.uri
    return f" (sqlite:///{name}?)" if name.endswith((".db", ".sqlite")) else ""


def _refused(target: Target, reason: str) -> Acceptance:
    return Acceptance(REFUSES, f"{VARIABLE}={redacted(target.uri)}: {reason}")


def _away(target: Target, reason: str) -> Acceptance:
    return Acceptance(AWAY, f"the tracking store {redacted(target.uri)} {reason}")


def _experiment(target: Target, found: dict[str, Any] | None) -> Acceptance:
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


# A database ----------------------------------------------------------------------------------


def _database(target: Target) -> Acceptance:
    file = sqlite_file(target.uri)
    if file is not None and (fault := _file_fault(file)):
        return _refused(target, fault)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return _experiment(target, None)
    try:
        fault, found = _rows(target)
    except _reasons() as error:
        return _database_error(target, error)
    return _refused(target, fault) if fault else _experiment(target, found)


def _reasons() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, ImportError, ValueError)


def _database_error(target: Target, error: Exception) -> Acceptance:
    reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
    if isinstance(error, ImportError):
        name = "psycopg[binary]" if target.uri.startswith("postgresql:") else error.name
        return _refused(target, f"its driver is not installed: pip install '{name}'")
    from sqlalchemy.exc import DatabaseError

    if not isinstance(error, DatabaseError) or _REFUSED.search(str(error.orig)):
        return _refused(target, f"it cannot be opened: {reason}")
    return _away(target, f"cannot be reached ({reason})")


def _file_fault(file: Path) -> str | None:
    """Why a SQLite file cannot be used, judged by the file system."""
    if file.is_dir():
        return f"{file} is a folder: add a file name, {file}/mlflow.db"
    place = file if file.exists() else file.parent
    if not place.exists():
        return f"the folder {place} is absent: make it, or name another"
    if not os.access(place, os.W_OK) or not os.access(file.parent, os.W_OK):
        return f"{place} is read-only for you: its owner can let you write, or name another"
    return None


def _rows(target: Target) -> tuple[str | None, dict[str, Any] | None]:
    """(what is wrong with the schema, the experiment's row)."""
    from sqlalchemy import column, create_engine, inspect, select, table
    from sqlalchemy.pool import NullPool

    local = {"connect_timeout": PATIENCE_S} if target.uri.startswith("postgresql") else {}
    engine = create_engine(target.uri, poolclass=NullPool, connect_args=local)
    with engine.connect() as base:
        tables = set(inspect(base).get_table_names())
        version = table("alembic_version", column("version_num"))
        stored = "alembic_version" in tables
        revision = base.execute(select(version)).scalar() if stored else None
        fault = schema_fault(tables, revision, redacted(target.uri))
        if fault or "experiments" not in tables:
            return fault, None
        names = ("experiment_id", "name", "lifecycle_stage", "artifact_location")
        rows = table("experiments", *map(column, names))
        number = target.experiment.removeprefix("#")
        wanted = rows.c.name == target.experiment
        if number != target.experiment:
            wanted = rows.c.experiment_id == (int(number) if number.isdecimal() else -1)
        found = base.execute(select(rows).where(wanted)).mappings().first()
        return None, None if found is None else dict(found)


# A server ------------------------------------------------------------------------------------


def _server(target: Target) -> Acceptance:
    from mlflow.exceptions import InvalidUrlException, MlflowException

    number = target.experiment.removeprefix("#")
    by_id = number != target.experiment
    try:
        answer = (
            _asked(target, "GET", "get", params={"experiment_id": number})
            if by_id
            else _asked(target, "GET", "get-by-name", params={"experiment_name": number})
        )
    except InvalidUrlException:
        return _refused(target, "is no address; write / @ and : of a password as %2F %40 and %3A")
    except MlflowException as error:
        reason = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            file = "MLFLOW_TRACKING_SERVER_CERT_PATH=FILE"
            return _refused(
                target, f"its certificate is not trusted here; name its authority: {file}"
            )
        return _away(target, "cannot be reached")
    if (refused := _status(target, answer)) is not None:
        return refused
    body = _body(answer)
    if answer.status_code == 404:
        return _experiment(target, None)
    found = body.get("experiment") or {}
    if found.get("experiment_id" if by_id else "name") != number:
        return _gateway(target)
    own = _experiment(target, found)
    if own.kind != ACCEPTS:
        return own
    new_name = {"experiment_id": found["experiment_id"], "new_name": found["name"]}
    try:  # the name that it has: changes nothing, and asks for the right to write
        writes = _asked(target, "POST", "update", json=new_name)
    except MlflowException:
        return _away(target, "cannot be reached")
    return own if writes.status_code == 404 else _status(target, writes) or own


def _asked(target: Target, method: str, verb: str, **body: Any) -> Any:
    """The answer of a server, whatever its status: one try, with the user's credentials."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    return http_request(
        get_default_host_creds(target.uri),
        _ROUTE + verb,
        method,
        max_retries=0,
        timeout=PATIENCE_S,
        raise_on_status=False,
        **body,
    )


def _status(target: Target, answer: Any) -> Acceptance | None:
    """What the status of an answer means by itself; None where its content decides."""
    code, message = answer.status_code, str(_body(answer).get("message", ""))
    if code == 401:
        login = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return _refused(target, f"it wants another login (401): set {login}")
    if code == 403 and "host" in answer.text.lower():
        return _refused(
            target, "it does not serve this host name (403): start it with --allowed-hosts"
        )
    if code == 403:
        name = target.experiment.removeprefix("#")
        return _refused(
            target,
            f"you may not write to experiment {name} (403): ask for the right to edit it, or "
            "name another with runtime.experiment=NAME",
        )
    if code == 404 and not message:
        return _refused(
            target, "no MLflow server answers there (404): check the address and its path"
        )
    if code in (408, 425, 429) or code >= 500:
        return _away(target, f"has no time for us (status {code})")
    if code == 200 and not _body(answer):
        return None if answer.request.method == "POST" else _gateway(target)
    if code not in (200, 404):
        return _refused(target, f"it refuses (status {code}): {message[:200] or 'no reason given'}")
    return None


def _gateway(target: Target) -> Acceptance:
    return _away(target, "is answered for by something else (a gateway, a login page?)")


def _body(answer: Any) -> dict[str, Any]:
    """The JSON of an answer; empty where it is anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
