"""The verbs compare and explain: runs of the tracking store next to each other. They only read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from analysis import tags
from analysis.compare import as_screen, comparison
from analysis.explain import as_words, compared_metrics, divergence
from analysis.ladder_numbers import EPOCH_METRICS
from analysis.runs import exported_experiment, load_history, load_runs
from analysis.selection.run_lookup import RunSelection, select_runs
from analysis.suggest import nearest
from pipeline.cli.arguments import options
from pipeline.cli.console import out, say
from pipeline.config import ConfigError, compose
from pipeline.session import store_of
from pipeline.storage.run_record import RunSpec
from pipeline.storage.run_store import Store, if_intact
from pipeline.tracking.restore import SPEC_FILE, logged_spec
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.values import flat

KEYS = ("runs", "experiment", "bench", "store", "runtime.store")


class _Request(NamedTuple):
    """The given runs, their tracking store (`tracking`: None for an exported file) and the local
    store."""

    sides: list[RunSelection]
    uri: str
    tracking: TrackingTarget | None
    store: Store


def compare_command(arguments: list[str]) -> None:
    """`compare RUN RUN … experiment=NAME bench=NAME store=FILE`: the differences, on one screen.

    Raises:
        ConfigError: an unknown option, fewer than two runs, or a word for no run or for several.
    """
    request = _read("compare", arguments, most=26)
    run_ids = [str(side.run["run_id"]) for side in request.sides]
    history = load_history(request.uri, run_ids, EPOCH_METRICS)
    out.print(as_screen(comparison(request.sides, history)), markup=False, highlight=False)


def explain_command(arguments: list[str]) -> None:
    """`explain A B experiment=NAME bench=NAME store=FILE`: where two runs part.

    Raises:
        ConfigError: as `compare_command`, and for more than two runs.
    """
    request = _read("explain", arguments, most=2)
    a, b = request.sides
    logged = [str(name).removeprefix("metrics.") for name in a.run.index if _is_metric(name)]
    ids = (str(a.run["run_id"]), str(b.run["run_id"]))
    history = load_history(request.uri, ids, compared_metrics(logged))
    if request.tracking is None:
        held = history["metric"].nunique()
        say(f"note: {request.uri} holds the histories of {held} of {len(logged)} metrics")
    found = divergence(
        (_identity(a, request), _identity(b, request)),
        history,
        ids,
        (a.tag(tags.RUN_KEY), b.tag(tags.RUN_KEY)),
    )
    for label, side in zip("AB", request.sides, strict=True):
        say(f"{label}  {side.run['name']}  id {side.run['run_id'][:8]}  {_place(side)}")
    out.print("\n" + as_words(found), markup=False, highlight=False)


def _is_metric(column: object) -> bool:
    return str(column).startswith("metrics.")


def _place(side: RunSelection) -> str:
    """What is not part of the identity but may explain a difference."""
    return "  ".join(
        f"{name} {side.tag(name)}" for name in (tags.DEVICE, tags.GIT) if side.tag(name)
    )


def _read(verb: str, arguments: list[str], most: int) -> _Request:
    """Find the given runs in the experiment."""
    given = options(arguments)
    plain = [text for text in arguments if "=" not in text]
    words = re.split(r"[\s,]+", " ".join([*plain, given.get("runs", "")]).strip())
    words = [word for word in words if word]
    errors = [
        f"{key}: no option of {verb}{nearest(key, list(KEYS), show_all=True)}"
        for key in given
        if key not in KEYS
    ]
    if not 2 <= len(words) <= most:
        wanted = "two runs" if most == 2 else f"two runs or more, {most} at most"
        errors.append(
            f"{verb}: {wanted}, not {len(words)} (a run is an id, a key, a name or a rung)"
        )
    if errors:
        raise ConfigError(errors)
    runtime = compose([f"{k}={v}" for k, v in given.items() if k == "runtime.store"]).runtime
    root = Path(runtime.store).resolve()
    tracking, file = None, given.get("store")
    try:
        if file:
            uri, experiment = file, given.get("experiment") or exported_experiment(file)
        else:
            tracking = TrackingTarget.from_environment(verb, given.get("experiment"), root)
            uri, experiment = tracking.uri, tracking.experiment_name()
        found = select_runs(load_runs(uri, experiment), words, given.get("bench"), experiment)
    except ValueError as error:
        raise ConfigError.of(error) from error
    return _Request(found, uri, tracking, store_of(runtime))


def _identity(side: RunSelection, request: _Request) -> dict[str, Any]:
    """The identity of a run, by dotted names: from the local store, from the run's artifacts, or
    else from its parameters."""
    spec = _spec(side, request)
    if spec is None:
        logged = side.run[[n for n in side.run.index if str(n).startswith("params.")]].dropna()
        why = f"logged no {SPEC_FILE}" if request.tracking is not None else "is read from a file"
        say(f"note: {side.run['name']} {why}; its parameters are compared instead of its identity")
        return {
            str(name).removeprefix("params."): value
            for name, value in logged.items()
            if not str(name).startswith(("params.runtime.", "params.overrides"))
        }
    identity = dict(spec.identity)
    teachers = {str(k): key for k, key in enumerate(identity.pop("teachers", []))}
    found = dict(flat(identity.pop("config", {}))) | dict(flat({"teachers": teachers}))
    return found | {"data digest" if k == "data" else k: v for k, v in identity.items()}


def _spec(side: RunSelection, request: _Request) -> RunSpec | None:
    folder = request.store.find(side.tag(tags.STAGE), side.tag(tags.RUN_KEY))
    spec = None if folder is None else if_intact(folder.spec)
    tracking, run_id = request.tracking, str(side.run["run_id"])
    if spec is not None or tracking is None:
        return spec
    if SPEC_FILE not in {file.path for file in tracking.client().list_artifacts(run_id)}:
        return None
    return if_intact(lambda: logged_spec(tracking, run_id))
