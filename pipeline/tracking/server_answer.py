"""Answer of a tracking server, asked once over HTTP with the user's credentials."""

from __future__ import annotations

from typing import Any

from pipeline.tracking.answer import (
    ACCEPTS,
    PATIENCE_S,
    Acceptance,
    Target,
    away,
    of_experiment,
    refused,
)

_ROUTE = "/api/2.0/mlflow/experiments/"


def of_server(target: Target) -> Acceptance:
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
        return refused(target, "is no address; write / @ and : of a password as %2F %40 and %3A")
    except MlflowException as error:
        reason = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            file = "MLFLOW_TRACKING_SERVER_CERT_PATH=FILE"
            return refused(
                target, f"its certificate is not trusted here; name its authority: {file}"
            )
        return away(target, "cannot be reached")
    if (no := _status(target, answer)) is not None:
        return no
    body = _body(answer)
    if answer.status_code == 404:
        return of_experiment(target, None)
    found = body.get("experiment") or {}
    if found.get("experiment_id" if by_id else "name") != number:
        return _gateway(target)
    own = of_experiment(target, found)
    if own.kind != ACCEPTS:
        return own
    new_name = {"experiment_id": found["experiment_id"], "new_name": found["name"]}
    try:  # the name that it has: changes nothing, and asks for the right to write
        writes = _asked(target, "POST", "update", json=new_name)
    except MlflowException:
        return away(target, "cannot be reached")
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
        return refused(target, f"it wants another login (401): set {login}")
    if code == 403 and "host" in answer.text.lower():
        return refused(
            target, "it does not serve this host name (403): start it with --allowed-hosts"
        )
    if code == 403:
        name = target.experiment.removeprefix("#")
        return refused(
            target,
            f"you may not write to experiment {name} (403): ask for the right to edit it, or "
            "name another with runtime.experiment=NAME",
        )
    if code == 404 and not message:
        return refused(
            target, "no MLflow server answers there (404): check the address and its path"
        )
    if code in (408, 425, 429) or code >= 500:
        return away(target, f"has no time for us (status {code})")
    if code == 200 and not _body(answer):
        return None if answer.request.method == "POST" else _gateway(target)
    if code not in (200, 404):
        return refused(target, f"it refuses (status {code}): {message[:200] or 'no reason given'}")
    return None


def _gateway(target: Target) -> Acceptance:
    return away(target, "is answered for by something else (a gateway, a login page?)")


def _body(answer: Any) -> dict[str, Any]:
    """The JSON of an answer; empty where it is anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
