"""Whether a tracking store accepts us: asked before anything is trained, and after a failed call.

A store that *refuses* (a wrong address, an unusable schema, a deleted experiment, missing rights)
does so until something is changed: what to change is one sentence. A store that is *away* (no
connection, an overloaded server, a gateway that answers in its place) is an outage, which costs
nothing: what it lacks is sent later. Nothing is made or changed by asking.
"""

from __future__ import annotations

from analysis.stores.address import hidden
from pipeline.tracking.answer import ACCEPTS, Acceptance, Target, refused
from pipeline.tracking.database_answer import of_database
from pipeline.tracking.server_answer import of_server

FORMS = "sqlite:///PATH/mlflow.db, postgresql://…, mysql://… or http(s)://…"
DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_DATABASES = ("sqlite", *DATABASE_SERVERS)
_SERVERS = ("http", "https")


def acceptance(target: Target) -> Acceptance:
    """Ask the tracking store of a target whether it takes runs of its experiment."""
    scheme = target.uri.partition(":")[0].partition("+")[0] if "://" in target.uri else ""
    if scheme in _DATABASES:
        answer = of_database(target)
    elif scheme in _SERVERS:
        answer = of_server(target)
    elif scheme and scheme != "file":
        answer = Acceptance(ACCEPTS)  # of a plug-in
    else:
        answer = refused(target, f"MLflow keeps no runs in folders; give {FORMS}{_hint(target)}")
    return Acceptance(answer.kind, hidden(answer.sentence), hidden(answer.artifacts))


def _hint(target: Target) -> str:
    name = target.uri
    return f" (sqlite:///{name}?)" if name.endswith((".db", ".sqlite")) else ""
