"""Where the runs of a command are looked at: an address, or the command that opens one."""

from __future__ import annotations

import shlex
from urllib.parse import quote

from analysis import tags
from analysis.stores.address import redacted
from pipeline.tracking.target import TrackingTarget
from trainers import metrics

_FILTER = f"tags.{tags.STAGE} = 'distill'"


def view(target: TrackingTarget) -> str:
    """The page with the students alone, the best test accuracy first, where the store is a server
    (its own address, where it is away); else the command that shows the store."""
    address = redacted(target.uri)
    if not address.startswith(("http://", "https://")):
        shown = shlex.quote(address) if address == target.uri else '"$MLFLOW_TRACKING_URI"'
        return f"mlflow ui --backend-store-uri {shown}"
    try:
        number = target.experiment_id()
    except Exception:  # noqa: BLE001 - away, which is reported where something is sent
        return address
    order = quote(f"metrics.`{metrics.TEST_TOP1}`", safe="")
    return (
        f"{address.split('?')[0].rstrip('/')}/#/experiments/{number}/runs"
        f"?workflowType=machine_learning&searchFilter={quote(_FILTER, safe='')}"
        f"&orderByKey={order}&orderByAsc=false"
    )


def experiment_words(target: TrackingTarget) -> list[str]:
    """The option of a printed command that names the experiment; none where only its number is
    known, and the store is away."""
    try:
        return [f"experiment={target.experiment_name()}"]
    except Exception:  # noqa: BLE001 - away, which is reported where something is sent
        return []
