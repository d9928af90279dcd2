"""A run's description in the tracking UI: its numbers, its key, and how to make it again."""

from __future__ import annotations

from analysis import tags
from analysis.words import joined, separated
from pipeline.storage.run_record import RunResult, RunSpec
from trainers import metrics

_SHARES = (
    ("test top-1", metrics.TEST_TOP1),
    ("validation top-1", metrics.BEST_VAL_TOP1),
)
_TIMES = (("A-Steps", metrics.A_STEP_SECONDS), ("B-Steps", metrics.B_STEP_SECONDS))


def description(spec: RunSpec, result: RunResult) -> str:
    """Markdown of a finished run."""
    values, run_tags = result.metrics, spec.tags
    shares = [
        f"{label} **{100 * values[key]:.2f} %**"
        for label, key in _SHARES
        if values.get(key) is not None
    ]
    times = [f"{label} {values[key]:.0f} s" for label, key in _TIMES if values.get(key)]
    cost = f"{values[metrics.RUN_SECONDS]:.0f} s ({', '.join(times)})" if times else ""
    networks = f"student `{run_tags[tags.STUDENT]}`"
    if run_tags[tags.STAGE] == "finetune":
        networks = f"teacher `{run_tags[tags.TEACHERS]}`"
    elif run_tags.get(tags.TEACHERS):
        networks += f", teachers `{run_tags[tags.TEACHERS]}`"
    about = [networks, f"bench `{run_tags[tags.BENCH]}`", f"seed {run_tags[tags.SEED]}"]
    return "\n\n".join(
        [
            "; ".join(part for part in (*shares, cost) if part),
            ", ".join(about),
            f"Key `{run_tags[tags.RUN_KEY]}`. Again: `{again(spec)}`",
        ]
    )


def again(spec: RunSpec) -> str:
    """The command that makes this run alone, whichever command made it (`main`, for example)."""
    params, stage = spec.params, spec.tags[tags.STAGE]
    given = separated(params.get("overrides", ""))
    own = {} if stage == "finetune" else {"cfg": params.get("cfg"), "seed": params.get("seed")}
    shared = [word for word in given if word.partition("=")[0] not in ("cfg", "seed", "teacher")]
    added = [f"{key}={value}" for key, value in own.items() if value is not None]
    return joined(["python", "-m", "pipeline", stage, *shared, *added])
