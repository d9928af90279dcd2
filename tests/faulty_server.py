"""A real tracking server in this process, whose answers a test can spoil.

A fault is chosen for each request: an answer of a status, HTML, `{}`, no answer at all, a slow one.
`after` does what was asked all the same, and spoils only the answer.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

SPOILED = {
    "500": ("500 Internal Server Error", "text/plain", b"oops"),
    "429": ("429 Too Many Requests", "text/plain", b"later"),
    "401": ("401 Unauthorized", "text/plain", b"You are not authenticated."),
    "403": ("403 Forbidden", "text/plain", b"Permission denied"),
    "404": ("404 Not Found", "text/html", b"<h1>404</h1>"),
    "409": ("409 Conflict", "application/json", b'{"message": "conflict"}'),
    "413": ("413 Content Too Large", "text/html", b"<h1>too large</h1>"),
    "503": ("503 Service Unavailable", "text/html", b"<h1>503</h1>"),
    "html": ("200 OK", "text/html", b"<html>Welcome to the hotel's network</html>"),
    "{}": ("200 OK", "application/json", b"{}"),
}
CLOSE, SLOW, AFTER = "close", "slow", "after "
Fault = Callable[[str, str], str | None]  # (method, path without /api/2.0/mlflow/) -> its fault


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass


class FaultyServer:
    """`faults` decides for each request; `calls` are those that reached MLflow."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlflow.server import app, handlers
        from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self.database = f"sqlite:///{folder}/mlflow.db"
        store = SqlAlchemyStore(self.database, "mlflow-artifacts:/")
        monkeypatch.setattr(handlers, "_tracking_store", store)
        monkeypatch.setattr(handlers, "_model_registry_store", Registry(self.database))
        monkeypatch.setattr(handlers, "_artifact_repo", None)
        monkeypatch.setenv(ARTIFACTS_DESTINATION_ENV_VAR, str(folder / "artifacts"))
        monkeypatch.setenv(SERVE_ARTIFACTS_ENV_VAR, "true")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.database)  # a server's own client uses it
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self.app, self.faults, self.calls = app, _none, list[tuple[str, str]]()
        self.server = make_server("127.0.0.1", 0, self._serve, True, request_handler=_Quiet)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fail(self, how: str, *paths: str, times: int | None = None) -> None:
        """Spoil the answers to requests of these paths (all, where none is given), some times."""
        left = [times]

        def faults(method: str, path: str) -> str | None:
            if (paths and path not in paths) or left[0] == 0:
                return None
            if left[0] is not None:
                left[0] -= 1
            return how

        self.faults = faults

    def clear(self) -> None:
        """Delete all runs."""
        from mlflow import MlflowClient

        client = MlflowClient(self.database)
        for one in client.search_experiments():
            for run in client.search_runs([one.experiment_id], max_results=1000):
                client.delete_run(run.info.run_id)

    def heal(self) -> None:
        self.faults = _none

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].removeprefix("/api/2.0/mlflow/")
        method = environ["REQUEST_METHOD"]
        how = self.faults(method, path)
        if how is None or how.startswith((AFTER, SLOW)):
            self.calls.append((method, path))
            answered: list[Any] = []
            body = b"".join(self.app(environ, lambda *a: answered.append(a)))
            if how is None or how == SLOW:
                time.sleep(0.3 if how == SLOW else 0)
                start(*answered[0])
                return [body]
        how = how.removeprefix(AFTER)
        if how == CLOSE:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        status, kind, body = SPOILED[how]
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]


def _none(method: str, path: str) -> None:
    return None


def copy_schema(schema: Path, folder: Path) -> Path:
    """The folder of a new server with an empty store, made from one with a schema."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(schema, folder / "mlflow.db")
    return folder
