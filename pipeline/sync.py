"""The sync verb: send what has not reached the tracking store."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import Config
from pipeline.console import say
from pipeline.destination import Destination, shown
from pipeline.lease import try_acquire
from pipeline.publish import Publication, Record, records
from pipeline.shell import Shell
from pipeline.store import RunFolder


def sync(config: Config, shell: Shell) -> None:
    """Bring every run of the store up to date at the present tracking store, each in the
    experiment and under the launch that it was meant for.

    Runs that are being trained are left to their own process.
    """
    sent, destinations = 0, dict[tuple[str, str | None, str], Destination]()
    for folder in shell.store.runs():
        missing = _missing(folder, shell)
        if not missing:
            continue
        lease = try_acquire(folder.path)
        if lease is None:
            say(f"running  {folder.stage}  key {folder.key}: its own process sends it")
            continue
        with lease:
            for record in missing:
                goal = (record.experiment, record.launch_id, record.command)
                if goal not in destinations:
                    destinations[goal] = replace(
                        shell.destination, experiment=goal[0], launch_id=goal[1],
                        verb=record.verb or "sync",
                    )  # fmt: skip
                _send(folder, destinations[goal], shell)
                sent += 1
    for destination in destinations.values():
        destination.end_launch("FINISHED")
    say(f"synced   {sent} run{'' if sent == 1 else 's'} with {shown(shell.destination.uri)}")


def _missing(folder: RunFolder, shell: Shell) -> list[Record]:
    """Where this run was meant to go in the present store and has not arrived whole."""
    return [r for r in records(folder, shell.destination) if not _complete(folder, r)]


def _complete(folder: RunFolder, record: Record) -> bool:
    """Whether all that is committed has arrived."""
    if record.finished:
        return True
    if folder.result() is not None or record.run_id is None:
        return False
    commit = folder.latest()
    return commit is None or record.epochs >= len(commit.history)


def _send(folder: RunFolder, destination: Destination, shell: Shell) -> None:
    """Send the rest of one run."""
    publication = Publication(folder, destination)
    result = folder.result()
    if result is not None:
        publication.finish(result, log_model=shell.runtime.log_model)
    else:
        commit = folder.latest()
        publication.start()
        publication.epochs(commit.history if commit is not None else [])
        publication.stop("KILLED", {"interrupted": "true"})
    say(f"sent     {folder.stage}  key {folder.key}")
