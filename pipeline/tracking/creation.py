"""Creation of runs in a tracking store: once, however often the request is repeated.

A client repeats a request whose answer was lost, and so does a retry after an outage; the store may
have done it each time. Every run therefore has tags that no other one has. They are looked for
before it is made and again afterwards: one run is kept, and the others, which are empty, are
deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from analysis.stores.address import hidden


class BadAnswer(ConnectionError):
    """Something else than the tracking store has answered, or it did not keep what it accepted."""


def only_run(
    client: Any,
    experiment_id: str,
    identity: Mapping[str, str],
    create: Callable[[], Any],
) -> str:
    """The id of the only run with these tags, which is made if there is none; of several runs the
    oldest is kept.

    Raises:
        BadAnswer: the answers contradict each other.
        MlflowException: the store cannot be reached, or refuses.
    """
    found = same_runs(client, experiment_id, identity)
    if not found:
        made = run_id_of(create())
        found = same_runs(client, experiment_id, identity)
        if made not in found:
            raise BadAnswer("the tracking store does not have the run that it has just made")
    for extra in found[1:]:
        client.delete_run(extra)
    return found[0]


def delete_extras(client: Any, experiment_id: str, identity: Mapping[str, str], kept: str) -> None:
    """Delete what a repeated request has made next to a run, also when it was done late."""
    found = same_runs(client, experiment_id, identity)
    for extra in found if kept in found else []:
        if extra != kept:
            client.delete_run(extra)


def same_runs(client: Any, experiment_id: str, identity: Mapping[str, str]) -> list[str]:
    """The ids of the runs with these tags, the oldest first."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
    order = ["attributes.start_time ASC"]
    runs = client.search_runs([experiment_id], query, max_results=1000, order_by=order)
    return [run_id_of(run) for run in runs]


def is_gone(client: Any, run_id: str) -> bool:
    """Whether a run was deleted from the store, or the store itself was."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise
    run_id_of(run, run_id)
    return bool(run.info.lifecycle_stage == "deleted")


def run_id_of(run: Any, expected: str | None = None) -> str:
    """The id of a run in an answer.

    Raises:
        BadAnswer: it has none, or another one than expected.
    """
    found = str(run.info.run_id or "")
    if not found or expected not in (None, found):
        raise BadAnswer("something else than the tracking store has answered (a gateway?)")
    return found


def source_tags() -> dict[str, str]:
    """MLflow's own tags of a new run (user, source, commit), without credentials."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: hidden(str(value)) for name, value in resolve_tags().items()}
