"""What durability and tracking cost next to epochs of five seconds.

    python -m benchmarks.commit [--bench digits] [--folder DIR]

commits states of an L3 run, each with the history of a whole budget, and sends the metrics of an
epoch to an SQLite store of MLflow. All is written to a temporary folder and deleted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from benchmarks.setting import Run, Setting, heading
from benchmarks.shown import at_most, spread, table
from pipeline.config import ConfigError
from pipeline.storage.run_store import Store
from pipeline.tracking.target import quiet_mlflow
from trainers.data import DataDamaged, DataMissing
from trainers.distill import distill, plan

EPOCH_SECONDS = 5.0
METRICS = {f"benchmark/metric-{i:02d}": 1 / (1 + i) for i in range(60)}
WARM_UP = 2  # calls that are not counted
CAPTION = """\
Milliseconds, median (least … largest) of {rounds}, and the same in percent of an epoch of 5 s; \
CPU ms: the share that this process computed, a median, where others use the machine too. \
A commit: state and history written, synced and renamed, the oldest generation deleted. Sending: \
one log_batch of {metrics} metrics to MLflow on SQLite; it runs in a thread next to training. Both \
on the file system of {folder}. Target: the larger commit and the sending together at most 2 %."""
HEAD = ["", "MiB", "CPU ms", "ms", "% of 5 s", "target"]


class Cost(NamedTuple):
    """What was done, the bytes that it wrote (0: not known), and the seconds of each call: by
    the wall clock, and of this process alone."""

    name: str
    size: int
    seconds: list[float]
    cpu: list[float]


def main() -> None:
    options = parse()
    setting = Setting(options.bench, "standard", options.train_limit, torch.device("cpu"))
    try:
        data = setting.data()
    except (ConfigError, DataMissing, DataDamaged) as error:
        raise SystemExit(str(error)) from error
    print(heading(setting, data))
    run = setting.run("L3", data, setting.teachers(data)[0])
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as name:
        folder = Path(name)
        commits = [commit_cost(folder, *found, options.rounds) for found in histories(run)]
        size = max(cost.size for cost in commits)
        plain = Cost("plain write and sync", size, *timed(writer(folder, size), options.rounds))
        sending = Cost("sending", 0, *timed(sender(folder), options.rounds))
    caption = CAPTION.format(
        rounds=options.rounds, metrics=len(METRICS), folder=options.folder or tempfile.gettempdir()
    )
    print(table(caption, HEAD, rows(commits, plain, sending)))


def histories(run: Run) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """An A-Step's fullest state (its best kept, moments of its own), then one of the B-Step; each
    with a history as long as the budget's last."""
    history, seen = [record(index) for index in range(len(plan(run.config)))], set()
    for epoch in distill(*run):
        if epoch.step not in seen and (epoch.step == "B" or run.state.a_best):
            seen.add(epoch.step)
            yield epoch.step, run.state.state_dict(), history
        if epoch.step == "B":
            return


def record(index: int) -> dict[str, Any]:
    """An epoch as a history holds it, with objects of its own as in a real one."""
    metrics = {name: value + index for name, value in METRICS.items()}
    return {"index": index, "stage": 1, "step": "B", "time": index, "metrics": metrics}


def commit_cost(
    root: Path, step: str, state: dict[str, Any], history: list[dict[str, Any]], rounds: int
) -> Cost:
    """The cost of committing a state again and again."""
    folder = Store(root).run("distill", step)

    def commit() -> Path:
        return folder.commit(state, history, token="benchmark")

    return Cost(f"commit in the {step}-Step", commit().stat().st_size, *timed(commit, rounds))


def writer(root: Path, size: int) -> Callable[[], None]:
    """What the file system needs for as many bytes, without any of the commit's own work."""
    body = os.urandom(size)

    def write() -> None:
        with (root / "plain").open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    return write


def sender(root: Path) -> Callable[[], None]:
    """Sends an epoch's metrics to a new SQLite store, one step further each time."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    quiet_mlflow()
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    run_id = client.create_run(client.create_experiment("benchmark", str(root))).info.run_id
    step = iter(range(10**9))

    def send() -> None:
        at, now = next(step), int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(k, v, now, at) for k, v in METRICS.items()])

    return send


def timed(work: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each counted call, by the wall clock and of this process's CPU time."""
    seconds, cpu = [], []
    for _ in range(WARM_UP + rounds):
        began, cpu_began = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    return seconds[WARM_UP:], cpu[WARM_UP:]


def rows(commits: list[Cost], plain: Cost, sending: Cost) -> list[list[str]]:
    """The table's rows, the last with the sum that the target is about."""
    larger = max(commits, key=lambda cost: median(cost.seconds))
    both = Cost(
        "commit and sending",
        0,
        [sum(pair) for pair in zip(larger.seconds, sending.seconds, strict=True)],
        [sum(pair) for pair in zip(larger.cpu, sending.cpu, strict=True)],
    )
    found = []
    for cost in [*commits, plain, sending, both]:
        percent = [100 * s / EPOCH_SECONDS for s in cost.seconds]
        target = at_most(2.0, percent) if cost is both else ""
        size = f"{cost.size / 2**20:.1f}" if cost.size else ""
        times = spread([1000 * s for s in cost.seconds], 1)
        cpu = f"{1000 * median(cost.cpu):.1f}"
        found.append([cost.name, size, cpu, times, spread(percent), target])
    return found


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bench", default="digits", help="a name of conf/bench")
    parser.add_argument("--train-limit", type=int, default=256, help="training images")
    parser.add_argument("--rounds", type=int, default=30, help="counted calls of each kind")
    parser.add_argument("--folder", help="write below this folder (null: the system's temporary)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
