"""Names of runs, such as `distill-L3-digits-s0`: the one place that formats them."""

from __future__ import annotations

import re

from pipeline.config import Config


def run_name(stage: str, config: Config, teacher: int = 0) -> str:
    """The name of a stage run: "distill", or "finetune" and "bank" of teacher number `teacher`."""
    seed, given = config.seed, False
    if stage != "distill":
        one = config.teachers()[teacher]
        seed, given = one.seed, stage == "finetune" and bool(one.ckpt)
    return f"{run_kind(stage, config, teacher)}-s{seed}{'-given' if given else ''}"


def run_kind(stage: str, config: Config, teacher: int = 0) -> str:
    """The name without the seed: what repetitions share."""
    network = config.rung if stage == "distill" else config.teachers()[teacher].model
    return kind_of(stage, network, config.bench.name)


def kind_of(stage: str, network: str, bench: str) -> str:
    """The name without the seed; `network` is the rung of a student, the model of a teacher."""
    return f"{stage}-{network}-{bench}"


def without_seed(name: str) -> str:
    """The name of a run or a view bank without its seed; older banks are stored without one."""
    return re.sub(r"-s\d+$", "", name)
