"""A run's description in the tracking UI: its numbers, its key, and how to make it again."""

from __future__ import annotations

from typing import Any

from pipeline import names

_SHARES = (
    ("test top-1", names.TEST_TOP1),
    ("validation top-1", names.BEST_VAL_TOP1),
)
_TIMES = (("A-Steps", names.A_STEP_SECONDS), ("B-Steps", names.B_STEP_SECONDS))


def description(spec: dict[str, Any], result: dict[str, Any]) -> str:
    """Markdown of a finished run; `spec` and `result` are those of its folder."""
    metrics, tags = result["metrics"], spec["tags"]
    shares = [
        f"{label} **{100 * metrics[key]:.2f} %**"
        for label, key in _SHARES
        if metrics.get(key) is not None
    ]
    times = [f"{label} {metrics[key]:.0f} s" for label, key in _TIMES if metrics.get(key)]
    cost = f"{metrics[names.RUN_SECONDS]:.0f} s ({', '.join(times)})" if times else ""
    networks = f"student `{tags[names.STUDENT]}`"
    if tags[names.STAGE] == "finetune":
        networks = f"teacher `{tags[names.TEACHERS]}`"
    elif tags.get(names.TEACHERS):
        networks += f", teachers `{tags[names.TEACHERS]}`"
    about = [networks, f"bench `{tags[names.BENCH]}`", f"seed {tags[names.SEED]}"]
    return "\n\n".join([
        "; ".join(part for part in (*shares, cost) if part),
        ", ".join(about),
        f"Key `{tags[names.RUN_KEY]}`. Again: `{again(spec)}`",
    ])  # fmt: skip


def again(spec: dict[str, Any]) -> str:
    """The command of this run alone, whatever command made it (a control of `main`, say)."""
    params, stage = spec["params"], spec["tags"][names.STAGE]
    typed = params.get("overrides", "").split()
    own = {} if stage == "finetune" else {"cfg": params.get("cfg"), "seed": params.get("seed")}
    shared = [word for word in typed if word.partition("=")[0] not in ("cfg", "seed", "teacher")]
    said = [f"{key}={value}" for key, value in own.items() if value is not None]
    return " ".join(["python -m pipeline", stage, *shared, *said])
