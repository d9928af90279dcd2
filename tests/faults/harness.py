"""Faults in distill, sync and evaluate, and what became of everything afterwards.

A case is one fault in one command. The command is run again until it ends with 0, then `sync`. At
the end the weights and histories must be those of an undisturbed run, and the tracking store must
equal the store value by value, with no run twice and none that seems to run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis import tags
from analysis.runs import opened
from pipeline.storage.run_store import RunFolder, Store
from pipeline.tracking.audit import RIGHT, judged, tracked_runs
from tests.end_to_end import command
from tests.faults.injection import KINDS, Fault
from tests.faulty_server import AFTER, CLOSE, SLOW, FaultyServer

RUN = (
    "cfg=KD",
    *command.TINY,
    *("budget.student_epochs=2", "teacher.0.recipe.epochs=1", "teacher.1.recipe.epochs=1"),
    *("runtime.retry_s=0.2", "runtime.sync_timeout_s=2"),
)
STUDENT = "distill-KD-digits-s0"
COMMANDS: dict[str, tuple[str, ...]] = {
    "distill": ("distill", *RUN),
    "sync": ("sync", "runtime.log_model=false"),
    "evaluate": ("evaluate", f"run={STUDENT}", "split=val", "runtime.log_model=false"),
}
ANSWERS = ("500", "429", "html", "{}", CLOSE, SLOW, *(AFTER + how for how in ("500", CLOSE, "{}")))
NEVER = 10**9  # a point that no command reaches
_TRIES = 4
Weights = dict[tuple[str, str], Any]


@dataclass
class Row:
    """What became of all faults of one kind in one command."""

    command: str
    kind: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        numbers = f"{self.tried:7}{self.survived:10}{self.lost:6}{self.doubled:9}"
        return "\n".join([f"{self.command:10}{self.kind:14}{numbers}", *self.notes])


HEADER = f"{'command':10}{'fault':14}{'tried':>7}{'survived':>10}{'lost':>6}{'doubled':>9}"


def _child(
    arguments: list[str], cwd: str, log: str, env: dict[str, str], fault: tuple[str, int]
) -> None:
    found = Fault(Path(cwd), *fault)
    found.install()
    try:
        command._child("pipeline", arguments, cwd, log, env)
    finally:
        with suppress(OSError):
            Path(log + ".count").write_text(str(found.seen))


def with_fault(name: str, cwd: Path, kind: str, point: int, uri: str) -> tuple[int, str, int]:
    """Exit code (negative: a signal), output and number of operations of a command with a fault."""
    log = cwd.parent / f"{cwd.name}-{kind}-{point}.txt"
    log.touch()
    env = {"MLFLOW_TRACKING_URI": uri}
    process = command._SERVER.Process(
        target=_child, args=([*COMMANDS[name]], str(cwd), str(log), env, (kind, point))
    )
    process.start()
    process.join(300)
    counted = Path(f"{log}.count")
    count = int(counted.read_text() or 0) if counted.is_file() else 0
    return process.exitcode or 0, log.read_text(errors="replace"), count


class Harness:
    """All cases on one small problem, below one folder."""

    def __init__(self, folder: Path, schema: Path, seed: int = 0) -> None:
        self.folder, self.schema, self.chance = folder, schema, random.Random(seed)
        self.cwd = folder / "case"  # one place for all: the address of a SQLite store is a path
        self.failed = 0
        self._prepare()
        self.expected = _weights(self.folder / "evaluate")

    def _prepare(self) -> None:
        """Nothing for distill, a store that has lost its tracking for sync, a whole one."""
        self.cwd.mkdir(parents=True)
        shutil.copy(self.schema, self.cwd / "mlflow.db")
        shutil.copytree(self.cwd, self.folder / "distill")
        command.run(*COMMANDS["distill"], cwd=self.cwd, MLFLOW_TRACKING_URI=_uri(self.cwd))
        shutil.copytree(self.cwd, self.folder / "evaluate")
        shutil.copy(self.schema, self.cwd / "mlflow.db")
        shutil.move(self.cwd, self.folder / "sync")

    def files(self, name: str, kind: str, points: int) -> Row:
        """Faults of a kind at some file operations of a command."""
        row = Row(name, kind)
        for point in self._points(name, kind, points):
            cwd = self._copy(name)
            code, output, _ = with_fault(name, cwd, kind, point, _uri(cwd))
            self._judge(row, f"operation {point}", code, output, cwd, _uri(cwd))
        return row

    def answers(self, name: str, how: str, points: int, server: FaultyServer) -> Row:
        """Wrong answers of the tracking server to some requests of a command."""
        row = Row(name, how)
        for point in sorted(self.chance.sample(range(1, 60), points)):
            cwd = self._served(name, server)
            seen = 0

            def faults(method: str, path: str, point: int = point) -> str | None:
                nonlocal seen
                seen += 1
                return how if point <= seen < point + 3 else None  # its repetitions, too

            server.faults = faults
            got, output = command.Command(
                *COMMANDS[name], cwd=cwd, MLFLOW_TRACKING_URI=server.uri
            ).end()
            server.heal()
            self._judge(row, f"request {point}", got, output, cwd, server.uri)
        return row

    def _served(self, name: str, server: FaultyServer) -> Path:
        """A folder for a command, and what the server has of it."""
        base, env = f"served-{server.server.server_port}", {"MLFLOW_TRACKING_URI": server.uri}
        if name == "distill":
            server.clear()
            return self._copy(name)
        if not (self.folder / base).exists():
            command.run(*COMMANDS["distill"], cwd=self._copy("distill"), **env)
            shutil.copytree(self.cwd, self.folder / base)
        server.clear()
        cwd = self._copy(base)
        if name == "evaluate":
            command.run(*COMMANDS["sync"], cwd=cwd, **env)
        return cwd

    def _points(self, name: str, kind: str, points: int) -> list[int]:
        cwd = self._copy(name)
        _, _, count = with_fault(name, cwd, kind, NEVER, _uri(cwd))
        return sorted(self.chance.sample(range(1, count + 1), min(points, count)))

    def _copy(self, name: str) -> Path:
        shutil.rmtree(self.cwd, ignore_errors=True)
        shutil.copytree(self.folder / name, self.cwd)
        return self.cwd

    def _judge(self, row: Row, at: str, code: int, output: str, cwd: Path, uri: str) -> None:
        row.tried += 1
        codes, env = [code], {"MLFLOW_TRACKING_URI": uri}
        for verb in (*([row.command] if code else []), "sync"):
            for _ in range(_TRIES):
                got, text = command.Command(*COMMANDS[verb], cwd=cwd, **env).end()
                output += text
                codes.append(got)
                if got == 0:
                    break
        lost, doubled = list(self._lost(cwd, uri)), list(_doubled(uri))
        row.lost += bool(lost)
        row.doubled += bool(doubled)
        if codes[-1] == 0 and not lost and not doubled:
            row.survived += 1
        else:
            self.failed += 1
            kept = self.folder / f"failed-{self.failed}"
            (cwd / "output.txt").write_text(output)
            shutil.move(cwd, kept)
            row.notes.append(f"  {at}: codes {codes} {'; '.join([*lost, *doubled])}  {kept}")

    def _lost(self, cwd: Path, uri: str) -> Iterator[str]:
        found = _weights(cwd)
        if found != self.expected:
            yield f"weights or losses differ: {set(found) ^ set(self.expected) or 'values'}"
        for folder in Store(cwd / "store" / "runs").runs():
            if folder.stage != "bank" and (fault := _fault(folder, uri)):
                yield fault


def _uri(cwd: Path) -> str:
    return f"sqlite:///{cwd}/mlflow.db"


def _weights(cwd: Path) -> Weights:
    """The digest of the weights and the losses of every run."""
    found: Weights = {}
    for folder in Store(cwd / "store" / "runs").runs():
        result = folder.whole_result()
        if result is not None:
            losses = [entry["metrics"].get("train/loss/total") for entry in result.history]
            found[folder.stage, folder.key] = (result.weights, losses)
    return found


def _tracked(uri: str) -> tuple[dict[str, dict[str, str]], dict[str, str], str]:
    """Tags and status of every run by its id, and the experiment; read without MLflow, whose
    connections in this process would outlive the file."""
    store = opened(uri)
    number = next((one.experiment_id for one in store.experiments() if one.name == "asib"), "0")
    rows = store.runs(number)
    found: dict[str, dict[str, str]] = {info.run_id: {} for info in rows.infos}
    for run_id, name, text in rows.tags:
        found[run_id][name] = text
    return found, {info.run_id: info.status for info in rows.infos}, number


def _fault(folder: RunFolder, uri: str) -> str:
    """What the tracking store has wrong of a run; empty where it equals the run folder."""
    of_runs, _, number = _tracked(uri)
    wanted = {tags.RUN_KEY: folder.key, tags.STAGE: folder.stage}
    ids = {run_id for run_id, found in of_runs.items() if wanted.items() <= found.items()}
    spec, result = folder.spec(), folder.result()
    assert spec is not None
    runs = tracked_runs(opened(uri), number, ids)
    if not runs:
        return f"{folder.stage} {folder.key} is not in the tracking store"
    wrong = [kind for run in runs.values() if (kind := judged(run, spec, result, [])) != RIGHT]
    return f"{folder.stage} {folder.key} {wrong[0]}" if wrong else ""


def _doubled(uri: str) -> Iterator[str]:
    """Runs that are in the tracking store twice, or seem to run for ever."""
    of_runs, status, _ = _tracked(uri)
    count = Counter((found[tags.STAGE], found.get(tags.RUN_KEY)) for found in of_runs.values())
    yield from (f"{key} is there {n} times" for key, n in count.items() if key[1] and n > 1)
    running = [of_runs[run_id][tags.STAGE] for run_id in of_runs if status[run_id] == "RUNNING"]
    yield from (f"{stage} seems to run" for stage in running)


def table(rows: list[Row]) -> str:
    """The result of all cases."""
    return "\n".join([HEADER, *map(str, rows)])


def cases() -> Iterator[tuple[str, str]]:
    """Every command with every fault in its files."""
    yield from ((name, kind) for name in COMMANDS for kind in KINDS)


def environment() -> None:
    """What a child inherits."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
