"""Faults in commands of every kind, and what became of everything afterwards.

A case is one fault in one command. The command is run again until it ends with 0, then `sync`. At
the end the weights and histories must be those of an undisturbed run, and the tracking store must
equal the store value by value, with no run twice and none that seems to run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from analysis import tags
from analysis.runs import load_runs, opened
from analysis.stores.address import redacted
from pipeline.storage.run_store import RunFolder, Store
from pipeline.tracking.audit import LACKS, RIGHT, judged, tracked_runs
from pipeline.tracking.plain_runs import PlainRun, plain_runs
from pipeline.tracking.plain_upload import differences
from tests.end_to_end import command
from tests.faults.injection import FROZEN, KINDS, Fault
from tests.faulty_server import AFTER, CLOSE, SLOW, FaultyServer

LEASES = ("runtime.heartbeat_s=0.3", "runtime.expiry_s=3")  # a frozen process is replaced soon
RUN = (
    *command.TINY,
    *("budget.student_epochs=2", "teacher.0.recipe.epochs=1", "teacher.1.recipe.epochs=1"),
    *("runtime.retry_s=0.2", "runtime.sync_timeout_s=2", *LEASES),
)
STUDENT, EXPORT = "distill-KD-digits_all-s0", "runs.db.xz"
PIPELINE, SWEEPS = "pipeline", "sweeps"
COMMANDS: dict[str, tuple[str, ...]] = {  # program, verb, words
    "distill": (PIPELINE, "distill", "cfg=KD", *RUN),
    "bank": (PIPELINE, "bank", "cfg=KD", *RUN),
    "sync": (PIPELINE, "sync", "runtime.log_model=false", *LEASES),
    "evaluate": (
        *(PIPELINE, "evaluate", f"run={STUDENT}", "split=val", "runtime.log_model=false"),
        *LEASES,
    ),
    "export": (PIPELINE, "export", f"out={EXPORT}"),
    "study": (
        *(SWEEPS, "work", "beta", "sampler=random", "trials=2", "seeds=0", "cfg=L1"),
        *("method.token_dim=16", "method.heads=2", "budget.adapt_epochs=2", *RUN),
    ),
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
    arguments: tuple[str, list[str]],
    cwd: str,
    log: str,
    env: dict[str, str],
    fault: tuple[str, int],
) -> None:
    found = Fault(Path(cwd), *fault)
    found.install()
    try:
        command._child(*arguments, cwd, log, env)
    finally:
        with suppress(OSError):
            Path(log + ".count").write_text(str(found.seen))


def with_fault(name: str, cwd: Path, kind: str, point: int, uri: str) -> tuple[int, str, int]:
    """Exit code (negative: a signal), output and number of operations of a command with a fault."""
    log = cwd.parent / f"{cwd.name}-{kind}-{point}.txt"
    log.touch()
    env, (program, *words) = {"MLFLOW_TRACKING_URI": uri}, COMMANDS[name]
    process = command._SERVER.Process(
        target=_child, args=((program, words), str(cwd), str(log), env, (kind, point))
    )
    process.start()
    if kind == FROZEN and _is_frozen(process):
        again(name, cwd, uri)
        os.kill(process.pid, signal.SIGCONT)
    process.join(300)
    counted = Path(f"{log}.count")
    count = int(counted.read_text() or 0) if counted.is_file() else 0
    return process.exitcode or 0, log.read_text(errors="replace"), count


def _is_frozen(process: Any) -> bool:
    """Wait until a process is frozen; False where it has ended before."""
    end = time.monotonic() + 300
    while process.is_alive() and time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                return True
        time.sleep(0.05)
    return False


def again(name: str, cwd: Path, uri: str) -> tuple[int, str]:
    """Exit code and output of a command without a fault."""
    program, verb, *words = COMMANDS[name]
    env = {"MLFLOW_TRACKING_URI": uri}
    return command.Command(verb, *words, cwd=cwd, program=program, **env).end()


class Harness:
    """All cases on one small problem, below one folder."""

    def __init__(self, folder: Path, schema: Path, seed: int = 0) -> None:
        self.folder, self.schema, self.chance = folder, schema, random.Random(seed)
        self.cwd = folder / "case"  # one place for all: the address of a SQLite store is a path
        self.failed = 0
        self._prepare()
        self.expected = {name: _weights(self.folder / "evaluate") for name in COMMANDS}
        del self.expected["study"]  # made when it is needed

    def _prepare(self) -> None:
        """Nothing for distill, a store that has lost its tracking for sync, one without banks for
        bank, a whole one for others."""
        self.cwd.mkdir(parents=True)
        shutil.copy(self.schema, self.cwd / "mlflow.db")
        shutil.copytree(self.cwd, self.folder / "distill")
        self._run("distill")
        for name in ("evaluate", "export", "bank"):
            shutil.copytree(self.cwd, self.folder / name)
        shutil.rmtree(self.folder / "bank" / "store" / "runs" / "bank")
        shutil.copy(self.schema, self.cwd / "mlflow.db")
        shutil.move(self.cwd, self.folder / "sync")

    def _prepare_study(self, name: str) -> None:
        """The teachers; and what becomes of a study without a fault."""
        if name in self.expected:
            return
        base = self.folder / "study"
        shutil.copytree(self.folder / "evaluate", base)
        shutil.rmtree(base / "store" / "runs" / "distill")
        self._run("sync", self._copy("study"))
        shutil.rmtree(base)
        shutil.copytree(self.cwd, base)
        self._run("study")
        self.expected["study"] = _weights(self.cwd)

    def _run(self, name: str, cwd: Path | None = None) -> None:
        code, output = again(name, cwd or self.cwd, _uri(self.cwd))
        assert code == 0, output

    def files(self, name: str, kind: str, points: int) -> Row:
        """Faults of a kind at some file operations of a command."""
        row = Row(name, kind)
        self._prepare_study(name)
        for point in self._points(name, kind, points):
            cwd = self._copy(name)
            code, output, _ = with_fault(name, cwd, kind, point, _uri(cwd))
            self._judge(row, f"operation {point}", code, output, cwd, _uri(cwd))
        return row

    def answers(self, name: str, how: str, points: int, server: FaultyServer) -> Row:
        """Wrong answers of the tracking server to some requests of a command."""
        row = Row(name, how)
        self._prepare_study(name)
        for point in sorted(self.chance.sample(range(1, 60), points)):
            cwd = self._served(name, server)
            seen = 0

            def faults(method: str, path: str, point: int = point) -> str | None:
                nonlocal seen
                seen += 1
                return how if point <= seen < point + 3 else None  # its repetitions, too

            server.faults = faults
            got, output = again(name, cwd, server.uri)
            server.heal()
            self._judge(row, f"request {point}", got, output, cwd, server.uri)
        return row

    def _served(self, name: str, server: FaultyServer) -> Path:
        """A folder for a command, and what the server has of it."""
        server.clear()
        if name in ("distill", "study"):
            return self._copy(name)
        base = f"served-{server.server.server_port}"
        if not (self.folder / base).exists():
            code, output = again("distill", self._copy("distill"), server.uri)
            assert code == 0, output
            shutil.copytree(self.cwd, self.folder / base)
            server.clear()
        cwd = self._copy(base)
        if name == "bank":
            shutil.rmtree(cwd / "store" / "runs" / "bank")
        if name != "sync":
            again("sync", cwd, server.uri)
        return cwd

    def _points(self, name: str, kind: str, points: int) -> list[int]:
        cwd = self._copy(name)
        code, output, count = with_fault(name, cwd, kind, NEVER, _uri(cwd))
        assert code == 0, output
        return sorted(self.chance.sample(range(1, count + 1), min(points, count)))

    def _copy(self, name: str) -> Path:
        shutil.rmtree(self.cwd, ignore_errors=True)
        shutil.copytree(self.folder / name, self.cwd)
        return self.cwd

    def _judge(self, row: Row, at: str, code: int, output: str, cwd: Path, uri: str) -> None:
        row.tried += 1
        codes = [code]
        for name in (*([row.command] if code else []), "sync"):
            for _ in range(_TRIES):
                got, text = again(name, cwd, uri)
                output += text
                codes.append(got)
                if got == 0:
                    break
        lost, doubled = list(self._lost(row.command, cwd, uri)), list(_doubled(cwd, uri))
        if row.kind == FROZEN and "Traceback" in output:
            lost.append("a traceback")
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

    def _lost(self, name: str, cwd: Path, uri: str) -> Iterator[str]:
        found, expected = _weights(cwd), self.expected[name]
        if name == "study" and _failed_trials(cwd):  # another one has taken the place of each
            shared = found.keys() & expected.keys()
            expected = {key: expected[key] for key in shared} | {
                key: found[key] for key in found.keys() - shared
            }
        if found != expected:
            yield f"weights or losses differ: {set(found) ^ set(expected) or 'values'}"
        for folder in Store(cwd / "store" / "runs").runs():
            if folder.stage != "bank" and (fault := _fault(folder, uri)):
                yield fault
        yield from (f"{run.name} is {kind}" for run, kind in _plain(cwd, uri) if kind != RIGHT)
        if name == "bank" and not list(cwd.glob("store/runs/bank/*/bank.json")):
            yield "there is no bank"
        if name == "export" and len(load_runs(str(cwd / EXPORT), "asib")) != len(expected):
            yield "the export has not all runs"


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


def _failed_trials(cwd: Path) -> int:
    """The number of trials that failed, which is said, and costs their result alone."""
    files = cwd.glob("store/tracking/launches/*/trial-*.json")
    return sum(json.loads(file.read_text())["status"] == "FAILED" for file in files)


class Tracked(NamedTuple):
    """A run of the tracking store; read without MLflow, whose connections in this process would
    outlive the file."""

    experiment_id: str
    run_id: str
    status: str
    tags: dict[str, str]


def _tracked(uri: str) -> list[Tracked]:
    store, found = opened(uri), []
    for one in store.experiments():
        rows = store.runs(one.experiment_id)
        of_run: dict[str, dict[str, str]] = {info.run_id: {} for info in rows.infos}
        for run_id, name, text in rows.tags:
            of_run[run_id][name] = text
        found += [
            Tracked(one.experiment_id, info.run_id, info.status, of_run[info.run_id])
            for info in rows.infos
        ]
    return found


def _fault(folder: RunFolder, uri: str) -> str:
    """What the tracking store has wrong of a run; empty where it equals the run folder."""
    wanted = {tags.RUN_KEY: folder.key, tags.STAGE: folder.stage}
    there = [run for run in _tracked(uri) if wanted.items() <= run.tags.items()]
    spec, result = folder.spec(), folder.result()
    assert spec is not None
    commit = folder.latest() if result is None else None
    history = list(commit.history) if commit is not None else []
    if not there:
        if (
            result is None and not history
        ):  # it failed before its first epoch: nothing is to be sent
            return ""
        return f"{folder.stage} {folder.key} is not in the tracking store"
    for one in there:
        (run,) = tracked_runs(opened(uri), one.experiment_id, {one.run_id}).values()
        if (kind := judged(run, spec, result, history)) != RIGHT:
            return f"{folder.stage} {folder.key} {kind}"
    return ""


def _plain(cwd: Path, uri: str) -> Iterator[tuple[PlainRun, str]]:
    """The runs without a run folder, and whether the tracking store equals their records."""
    store = opened(uri)
    number = {one.name: one.experiment_id for one in store.experiments()}
    for run in plain_runs(cwd / "store" / "tracking", redacted(uri)):
        if run.status is None or run.experiment not in number:
            yield run, LACKS
        else:
            (kind,) = differences([run], store, number[run.experiment], links=True).values()
            yield run, kind


def _doubled(cwd: Path, uri: str) -> Iterator[str]:
    """Runs that are in the tracking store twice, of which nothing is known, or that seem to run for
    ever."""
    there = _tracked(uri)
    keys = Counter((r.experiment_id, r.tags[tags.STAGE], r.tags.get(tags.RUN_KEY)) for r in there)
    yield from (f"{key} is there {n} times" for key, n in keys.items() if key[2] and n > 1)
    known = {run.run_id for run, _ in _plain(cwd, uri)}
    yield from (
        f"{run.tags[tags.STAGE]} {run.run_id} is of no command"
        for run in there
        if tags.RUN_KEY not in run.tags and run.run_id not in known
    )
    yield from (f"{run.tags[tags.STAGE]} seems to run" for run in there if run.status == "RUNNING")


def table(rows: list[Row]) -> str:
    """The result of all cases."""
    return "\n".join([HEADER, *map(str, rows)])


def cases() -> Iterator[tuple[str, str]]:
    """Every command with every fault in its files."""
    yield from ((name, kind) for name in COMMANDS for kind in KINDS)


def environment() -> None:
    """What a child inherits."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
