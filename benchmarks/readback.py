"""Reading a large tracking store: runs, histories, the ladder analysis and the whole report.

    python -m benchmarks.readback [RUNS] [EPOCHS]      (default 1000 100)
    python -m benchmarks.readback --quick              40 runs, 20 epochs

The store is written straight into MLflow's own schema; through its client it would take half an
hour. Next to load_runs and load_history are the plain ways: `mlflow.search_runs`, and one
`get_metric_history` for a run and metric (of 50 runs, times what there are). Cold: in a process
that has only just started, its imports included; warm: again in that process. Then the same
store is read through a server on loopback (the histories of 200 runs).
"""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analysis import tags
from analysis.render.html import as_html
from analysis.render.text import as_text
from analysis.report_model import TextTable
from analysis.runs import load_history, load_runs
from analysis.sections.registry import analyze
from tests.end_to_end.server import Server
from trainers import metrics

EXPERIMENT, START = "bench", 1_700_000_000_000
RUNGS = ("CE", "KD", "L0", "L1", "L2", "L3", "L4")
BENCHES = ("toy", "large")
WANTED = (metrics.VAL_TOP1, metrics.STAGE_STEP, metrics.SYNERGY_TOP1)
EPOCHWISE = (
    metrics.VAL_TOP1,
    metrics.STAGE_STEP,
    metrics.SYNERGY_TOP1,
    metrics.IMAGES_PER_SECOND,
    metrics.PEAK_MEMORY,
    metrics.STEP_SECONDS,
    metrics.OBJECTIVE,
    metrics.VAL_RATE,
    metrics.VAL_CE,
    metrics.LABEL_ENTROPY,
    metrics.STUDENT_TRAINABLE,
    metrics.STUDENT_TRAINABLE_REQUESTED,
    metrics.teacher(0, "top1_before"),
    metrics.teacher(0, "top1_after"),
    *(f"train/loss/term{k}" for k in range(32)),
)
AT_END = (metrics.TEST_TOP1, metrics.BEST_VAL_TOP1, metrics.RUN_SECONDS, metrics.SYNERGY_GAIN)
PARAMS = 60
PLAIN_RUNS = 50
SERVER_RUNS = 200


def write_store(path: Path, runs: int, epochs: int) -> str:
    """A store of `runs` finished runs with 60 params, 46 metrics an epoch and 4 at the end."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{path}"
    experiment = int(MlflowClient(tracking_uri=uri).create_experiment(EXPERIMENT))
    draw = np.random.default_rng(0)
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA synchronous = OFF")
        for number in range(runs):
            rows = dict(_rows(base, experiment, number, epochs, draw))
            for name, values in rows.items():
                marks = ", ".join("?" * len(values[0]))
                base.executemany(f"INSERT INTO {name} VALUES ({marks})", values)
    return uri


def _rows(
    base: sqlite3.Connection, experiment: int, number: int, epochs: int, draw: Any
) -> Iterator[tuple[str, list[tuple]]]:
    """The rows of one run by table and columns."""
    run_id = uuid.UUID(int=number).hex
    group, rung = divmod(number, len(RUNGS))
    seed, bench = divmod(group, len(BENCHES))
    at = START + number * 1000
    run_tags = {
        tags.STAGE: "distill",
        tags.RUNG: RUNGS[rung],
        tags.BENCH: BENCHES[bench],
        tags.SEED: str(seed),
        tags.RUN_KEY: f"{number:012x}",
        tags.RECIPE: RUNGS[rung],
    }
    params = {"seed": str(seed), "overrides": f"cfg={RUNGS[rung]} seed={seed}"}
    params |= {"method.ib_beta": "0.001"} | {f"method.p{k}": str(k) for k in range(PARAMS - 3)}
    values = draw.normal(0.7, 0.02, (epochs, len(EPOCHWISE)))
    values[:, 1] = np.arange(epochs) % 4 > 0  # every fourth epoch is an A-Step
    yield (
        "runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, experiment_id, "
        "user_id)",
        [(run_id, f"run-{number}", "FINISHED", at, at + 900, "active", experiment, "bench")],
    )
    yield "tags (key, value, run_uuid)", [(k, v, run_id) for k, v in run_tags.items()]
    yield "params (key, value, run_uuid)", [(k, v, run_id) for k, v in params.items()]
    points = [
        (key, float(values[step, column]), at + step, step, 0, run_id)
        for (column, key), step in itertools.product(enumerate(EPOCHWISE), range(epochs))
    ] + [(key, float(draw.normal(0.7, 0.01)), at + epochs, epochs, 0, run_id) for key in AT_END]
    columns = "(key, value, timestamp, step, is_nan, run_uuid)"
    yield f"metrics {columns}", points
    latest = {point[0]: point for point in points}
    yield f"latest_metrics {columns}", list(latest.values())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and the result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def plain_histories(uri: str, run_ids: list[str]) -> float:
    """Seconds of one call a run and metric, of `PLAIN_RUNS` runs, times what there are."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    filters = itertools.product(run_ids[:PLAIN_RUNS], WANTED)
    seconds, _ = timed(lambda: [client.get_metric_history(*pair) for pair in filters])
    return seconds * len(run_ids) / min(PLAIN_RUNS, len(run_ids))


def plain_runs(uri: str) -> float:
    """Seconds of MLflow's own frame of all runs."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    return timed(lambda: mlflow.search_runs(experiment_names=[EXPERIMENT], max_results=50_000))[0]


COLD = """
import resource, time
began = time.perf_counter()
from analysis.sections.registry import analyze
analyze({uri!r}, {experiment!r}, "ladder")
cold = time.perf_counter()
analyze({uri!r}, {experiment!r}, "ladder")
print(cold - began, time.perf_counter() - cold, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def ladder_cold_and_warm(uri: str) -> tuple[float, float, float]:
    """Seconds of the ladder analysis in a new process, seconds of a second one in it, and the
    highest memory of that process in MiB."""
    program = COLD.format(uri=uri, experiment=EXPERIMENT)
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    cold, warm, kib = map(float, found.stdout.split())
    return cold, warm, kib / 1024


Row = tuple[str, float, float | None]


def reading(uri: str, where: str, histories: int) -> list[Row]:
    """Our way and the plain one, of all runs and of the histories of so many of them."""
    plain = plain_runs(uri)
    ours, frame = timed(lambda: load_runs(uri, EXPERIMENT))
    ids = frame["run_id"].tolist()[:histories]
    one_by_one = plain_histories(uri, ids)
    bulk, _ = timed(lambda: load_history(uri, ids, WANTED))
    what = f"load_history, {len(ids)} runs, {len(WANTED)} metrics, {where}"
    return [(f"load_runs, {where}", ours, plain), (what, bulk, one_by_one)]


def main(runs: int = 1000, epochs: int = 100) -> None:
    """Write the store and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        uri = write_store(Path(folder) / "mlflow.db", runs, epochs)
        cold, warm, memory = ladder_cold_and_warm(uri)
        rows = reading(uri, "SQLite", runs)
        rows += [("analyze what=ladder, cold", cold, None), ("… warm", warm, None)]
        whole, found = timed(lambda: analyze(uri, EXPERIMENT))
        shown, _ = timed(lambda: as_html(found))
        rows.append(("analyze what=comprehensive", whole, None))
        rows.append(("its page with all figures", shown, None))
        with Server(Path(folder)) as server:
            rows += reading(server.uri, "server", SERVER_RUNS)
    metrics = len(EPOCHWISE) + len(AT_END)
    print(f"{runs} runs × {PARAMS} params × {metrics} metrics × {epochs} epochs")
    cells = [
        (name, f"{s:.2f}", f"{p:.2f}" if p else "", f"{p / s:.1f}" if p else "")
        for name, s, p in rows
    ]
    print(as_text(TextTable(("", "s", "the plain way, s", "ratio"), tuple(cells))))
    print(f"highest memory of the ladder analysis: {memory:.0f} MiB")


if __name__ == "__main__":
    main(40, 20) if sys.argv[1:] == ["--quick"] else main(*map(int, sys.argv[1:3]))
