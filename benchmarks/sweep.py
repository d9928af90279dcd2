"""What a study costs next to its training, and whether its storage loses anything.

    python -m benchmarks.sweep [--quick] [--trials 1000] [--workers 8] [--folder DIR]

starts workers; runs trials of no time at all through the storage; runs short students of digits
with one worker and with two. All is written to a temporary folder and deleted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import chdir, redirect_stdout
from io import StringIO
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.setting import Setting, heading
from benchmarks.shown import at_most, ratios, spread, table
from pipeline.config import ConfigError
from pipeline.launch.base import ENDED, Task
from pipeline.launch.local import Local
from pipeline.launch.options import LocalConfig
from pipeline.session import Session
from sweeps.run_study import read
from sweeps.study import Study
from sweeps.tracking import VALUES, study_target
from sweeps.trials import TrialStore
from sweeps.worker import work
from trainers.data import DataDamaged, DataMissing

SERVER = get_context("forkserver")  # one a process: the launcher's own
HEARTBEAT_S, EXPIRY_S = 3.0, 30.0
READY_S = 120.0  # until every worker waits for the start, or one of them has failed
STORAGE = """\
Storage: trials of 0 s, drawn at random: a trial is requested, its lease taken, one attribute \
written, its value reported. Journal file on {folder}. Finished and reported must both be \
the trials requested: none lost, none twice."""
STARTING = """\
A worker: seconds from handing it to the launcher to the beginning of its first trial, in a new \
server process that imports everything (cold) and in one that has done so (warm), {rounds} of \
each."""
TRIALS = """\
{trials} short students (CE, {epochs} epochs, {images} images, SQLite tracking) in warm workers, \
{rounds} rounds. Overhead: what a trial takes from its beginning to the next one's beyond the \
training that its run counts: configuration, data, network, commit, weights, test, tracking of run \
and trial."""


class Simulated(NamedTuple):
    """What became of a study of trials that take no time."""

    workers: int
    requested: int
    finished: int
    reported: int
    seconds: float


def main() -> None:
    options = parse()
    setting = Setting("digits", "standard", options.train_limit, torch.device("cpu"))
    try:
        data = setting.data()
    except (ConfigError, DataMissing, DataDamaged) as error:
        raise SystemExit(str(error)) from error
    print(heading(setting, data), flush=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as name:
        folder = Path(name)
        show_starting(folder, options)  # first: it starts the server process of all that follow
        show_storage(folder, options)
        show_trials(folder, options)


def study(trials: int, options: argparse.Namespace) -> Study:
    """Short students that differ in their learning rate."""
    base = [
        "bench=digits",
        "cfg=CE",
        f"data.train_limit={options.train_limit}",
        "optim.batch=20",
        f"budget.student_epochs={options.epochs}",
        "runtime.log_model=false",
        "runtime.threads=1",
    ]
    return Study(
        "benchmark",
        base,
        sampler="random",
        trials=trials,
        space={"optim.lr": {"low": 1e-3, "high": 1e-2, "log": True}},
    )


def trial_store(plan: Study, root: Path) -> TrialStore:
    return TrialStore(plan, root, HEARTBEAT_S, EXPIRY_S)


# Start-up -------------------------------------------------------------------------------------


def show_starting(folder: Path, options: argparse.Namespace) -> None:
    """Seconds until a worker has begun its first trial. The first of this command is cold: the
    launcher's server process is a new one."""
    seconds = [started(folder / "starting", seed, options) for seed in range(options.rounds + 1)]
    rows = [["cold", f"{seconds[0]:.2f}"], ["warm", spread(seconds[1:])]]
    print(table(STARTING.format(rounds=options.rounds), ["", "seconds"], rows), flush=True)


def started(folder: Path, seed: int, options: argparse.Namespace) -> float:
    """A worker by the launcher of this machine, for the first rung of a ladder study: CE."""
    base = [text for text in study(1, options).base if not text.startswith("cfg=")]
    given = ["trials=1", f"seeds={seed}", f"runtime.store={folder}/store", *base]
    folder.mkdir(exist_ok=True)
    where = (("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db"),)
    launcher = Local(LocalConfig(jobs_parallel=1), folder / f"jobs-{seed}")
    began = time.time()
    launcher.submit([Task("worker", "sweeps", ("work", "ladder", *given), where)])
    while launcher.poll()["worker"].state not in ENDED:
        time.sleep(0.01)
    (trial,) = (
        t for t in read("ladder", given).trial_store().trials().values() if t.datetime_complete
    )
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp() - began


# Storage --------------------------------------------------------------------------------------


def show_storage(folder: Path, options: argparse.Namespace) -> None:
    """Trials a second by one worker and by many."""
    head = ["", "trials", "finished", "reported", "seconds", "trials/s"]
    rows = []
    for workers in dict.fromkeys((1, options.workers)):
        one = simulated(folder / f"storage-{workers}", workers, options)
        many = "worker" if workers == 1 else "workers"
        counts = [str(count) for count in (one.requested, one.finished, one.reported)]
        rate = f"{one.requested / one.seconds:.0f}"
        rows.append([f"{workers} {many}", *counts, f"{one.seconds:.1f}", rate])
        if not one.requested == one.finished == one.reported:
            raise SystemExit(f"trials were lost or run twice: {one}")
    where = options.folder or tempfile.gettempdir()
    print(table(STORAGE.format(folder=where), head, rows), flush=True)


def simulated(root: Path, workers: int, options: argparse.Namespace) -> Simulated:
    """A study of trials that take no time, by so many processes."""
    plan = study(options.trials, options)
    plan.key  # noqa: B018 - now, once, and not in every worker
    ready, go, reported = (
        SERVER.Barrier(workers + 1, timeout=READY_S),
        SERVER.Event(),
        SERVER.Queue(),
    )
    processes = [
        SERVER.Process(target=report_trials, args=(plan, root, ready, go, reported))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    go.set()
    count = sum(reported.get() for _ in processes)
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return Simulated(workers, options.trials, len(trial_store(plan, root).ended()), count, seconds)


def report_trials(plan: Study, root: Path, ready: Any, go: Any, reported: Any) -> None:
    """One worker: how many trials it has reported."""
    mine, count = trial_store(plan, root), 0
    ready.wait()
    go.wait()
    while (claimed := mine.take(plan.wanted)) is not None:
        with claimed.lease:
            claimed.trial.set_user_attr(VALUES, {"0": {"key": claimed.label, "val": 0.5}})
            claimed.part.tell(claimed.trial, 0.5)
        count += 1
    reported.put(count)


# Trials ---------------------------------------------------------------------------------------


def show_trials(folder: Path, options: argparse.Namespace) -> None:
    """Overhead of a trial, and how much sooner two workers are done than one."""
    alone, both, overhead, training = [], [], list[float](), list[float]()
    for number in range(options.rounds):
        for workers, seconds in ((1, alone), (2, both)):
            trials = trained(folder / f"trials-{number}-{workers}", workers, options)
            seconds.append(trials.seconds)
            if workers == 1:
                overhead += trials.overhead
                training += trials.training
    sooner = ratios(alone, both)
    rows = [
        ["training of a trial, s", spread(training), ""],
        ["overhead of a trial, s", spread(overhead), at_most(1.0, overhead)],
        ["1 worker, s", spread(alone, 1), ""],
        ["2 workers, s", spread(both, 1), ""],
        ["1 worker / 2 workers", spread(sooner), ""],
    ]
    caption = TRIALS.format(
        trials=options.students,
        epochs=options.epochs,
        images=options.train_limit,
        rounds=options.rounds,
    )
    print(table(caption, ["", "", "target"], rows), flush=True)


class Trained(NamedTuple):
    """A study of real students: seconds from when all workers were ready to the last value, and
    of each trial but every worker's first."""

    seconds: float
    training: list[float]
    overhead: list[float]


def trained(folder: Path, workers: int, options: argparse.Namespace) -> Trained:
    """The students of a study by so many warm workers."""
    folder.mkdir()
    plan = study(options.students, options)
    ready, processes = SERVER.Barrier(workers + 1, timeout=READY_S), []
    for _ in range(workers):
        processes.append(SERVER.Process(target=run_trials, args=(plan, folder, ready)))
        processes[-1].start()
    ready.wait()
    began = time.time()
    for process in processes:
        process.join()
    found = sorted(trial_store(plan, folder).trials().values(), key=lambda t: t.datetime_start)  # type: ignore[arg-type,return-value]
    begins = [trial.datetime_start.timestamp() for trial in found]  # type: ignore[union-attr]
    ends = [trial.datetime_complete.timestamp() for trial in found]  # type: ignore[union-attr]
    training = [trial.user_attrs[VALUES]["0"]["seconds"] for trial in found]
    gaps = [after - before for before, after in pairwise(begins)]
    overhead = [gap - own for gap, own in zip(gaps, training, strict=False)][1:]
    return Trained(max(ends) - began, training[1:], overhead)


def run_trials(plan: Study, folder: Path, ready: Any) -> None:
    """One worker, warm: its tracking store is open and its data is read before it begins."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    with chdir(folder), redirect_stdout(StringIO()):
        session = Session.open(plan.config, "benchmark", [])
        place = study_target(trial_store(plan, folder), session.target)
        place.parent_id()
        plan.key  # noqa: B018
        ready.wait()
        work(trial_store(plan, folder), plan.wanted, session, place)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a look: few trials, one round")
    parser.add_argument("--trials", type=int, default=1000, help="trials of no time")
    parser.add_argument("--workers", type=int, default=8, help="workers on them")
    parser.add_argument("--students", type=int, default=12, help="short students of a study")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a student")
    parser.add_argument("--train-limit", type=int, default=256, help="training images")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of workers and students")
    parser.add_argument("--folder", help="write below this folder (null: the system's temporary)")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.students, options.epochs, options.rounds = 60, 4, 4, 1
    return options


if __name__ == "__main__":
    main()
