"""Frames as `load_runs` and `load_history` give them, written by hand."""

import pandas as pd

from analysis.runs import HISTORY_COLUMNS
from analysis.selection.bench_runs import BenchRuns
from trainers import metrics


def runs(*rows: dict) -> pd.DataFrame:
    """One run each; a key is a column, run ids are r0, r1, …, later runs start later."""
    complete = [
        {
            "run_id": f"r{index}",
            "name": f"run {index}",
            "status": "FINISHED",
            "start_time": pd.Timestamp(index, unit="D", tz="UTC"),
        }
        | row
        for index, row in enumerate(rows)
    ]
    return pd.DataFrame(complete)


def distill(rung: str, seed: int, test: float | None = None, bench: str = "toy", **more) -> dict:
    """A distillation run; `more` has metrics by the last part of their name, params as given."""
    row = {"tags.stage": "distill", "tags.bench": bench, "tags.rung": rung, "tags.seed": str(seed)}
    row["metrics.test/top1"] = test
    short = {"seconds": metrics.RUN_SECONDS, "speed": metrics.IMAGES_PER_SECOND}
    short |= {
        "memory": metrics.PEAK_MEMORY,
        "synergy": metrics.SYNERGY_RESTORED,
        "gain": metrics.SYNERGY_GAIN,
        "gain_student": metrics.SYNERGY_GAIN_STUDENT,
        "query_share": metrics.SYNERGY_QUERY_SHARE,
        "token_share": metrics.SYNERGY_TOKEN_SHARE,
        "gain_average": metrics.SYNERGY_GAIN_AVERAGE,
        "gain_original": metrics.SYNERGY_GAIN_ORIGINAL,
        "gain_average_original": metrics.SYNERGY_GAIN_AVERAGE_ORIGINAL,
    }
    for key, value in more.items():
        row[f"metrics.{short[key]}" if key in short else key] = value
    return row


def params(**values) -> dict:
    """`params(budget__student_epochs=2)` is the column `params.budget.student_epochs`, as text."""
    return {f"params.{key.replace('__', '.')}": str(value) for key, value in values.items()}


def history(run_id: str, **metrics: list[tuple[int, float]]) -> pd.DataFrame:
    """Points (step, value) by metric; `val__top1` is `val/top1`."""
    rows = [
        (run_id, key.replace("__", "/"), step, value, pd.Timestamp(step, unit="s", tz="UTC"))
        for key, points in metrics.items()
        for step, value in points
    ]
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def bench_runs(frame: pd.DataFrame, *points: pd.DataFrame) -> BenchRuns:
    """`points` are the histories; only what is requested is returned."""
    known = pd.concat([history("none"), *points])

    def histories(run_ids, metrics):
        asked = known["run_id"].isin(list(run_ids)) & known["metric"].isin(list(metrics))
        return known[asked]

    last = known.groupby(["run_id", "metric"])["value"].last().unstack()
    last = last.reindex(frame["run_id"]).set_axis(frame.index).add_prefix("metrics.")
    return BenchRuns("toy", frame.combine_first(last), histories)


def with_beta(value: str, seed: int, val: float, test: float, **more) -> dict:
    return distill(
        "L1",
        seed,
        test,
        **params(method__ib_beta=value, method__bottleneck=True),
        **{f"metrics.{metrics.BEST_VAL_TOP1}": val, f"metrics.{metrics.RATE}": 3.0, **more},
    )
