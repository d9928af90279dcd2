"""The sync verb: send what has not reached the tracking store."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.console import say
from pipeline.lease import try_acquire
from pipeline.publish import Publication, Record
from pipeline.shell import Shell
from pipeline.store import RunFolder


def sync(config: Config, shell: Shell) -> None:
    """Bring every run of the store that was meant for this destination up to date.

    Runs that are being trained are left to their own process.
    """
    sent = 0
    for folder in shell.store.runs():
        if folder.read_json("spec") is None:
            continue
        lease = try_acquire(folder.path)
        if lease is None:
            say(f"running  {folder.key}: its own process sends it")
            continue
        with lease:
            sent += _send(folder, shell)
    say(f"synced   {sent} run{'s' if sent != 1 else ''} with {Record.name(shell.destination)[9:]}")


def _send(folder: RunFolder, shell: Shell) -> bool:
    """Send one run's rest; False where nothing was missing."""
    publication = Publication(folder, shell.destination)
    if publication.record.finished:
        return False
    result = folder.result()
    if result is not None:
        publication.finish(result, log_model=shell.runtime.log_model)
    else:
        commit = folder.latest()
        history = commit.history if commit is not None else []
        if publication.record.run_id is not None and publication.record.epochs >= len(history):
            return False
        publication.start()
        publication.epochs(history)
        publication.stop("KILLED", {"interrupted": "true"})
    say(f"sent     {folder.stage}  key {folder.key}")
    return True
