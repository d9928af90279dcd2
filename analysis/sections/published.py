"""Published numbers of the literature, for comparison.

Top-1 on CIFAR-100, fractions, last epoch of 240, no mixing, one teacher, as in the tables of Tian
et al. 2020 (arXiv 1910.10699) and Zhao et al. 2022 (arXiv 2203.08679); `dkd` is of the best epoch
on the test set, `kd_ls` of its authors (Sun et al. 2024, arXiv 2403.01427).
"""

from collections.abc import Collection, Mapping

PAIRS: Mapping[str, Mapping[str, float]] = {
    "resnet8x4": {
        "ce": 0.7250,
        "kd": 0.7333,
        "fitnet": 0.7350,
        "at": 0.7344,
        "crd": 0.7551,
        "dkd": 0.7632,
        "kd_ls": 0.7662,
    },
    "shufflenet_v2": {
        "ce": 0.7182,
        "kd": 0.7445,
        "fitnet": 0.7354,
        "at": 0.7273,
        "crd": 0.7565,
        "dkd": 0.7707,
        "kd_ls": 0.7556,
    },
    "mobilenet_v2": {
        "ce": 0.6460,
        "kd": 0.6735,
        "fitnet": 0.6316,
        "at": 0.5858,
        "crd": 0.6911,
        "dkd": 0.7035,
        "kd_ls": 0.6902,
    },
}
BENCHES = ("literature_", "sota_")  # of one pair each
# The networks that the numbers belong to, by the bench's name after its prefix.
STUDENTS = {name: name for name in PAIRS} | {"mobilenet_v2": "mobilenet_v2_half"}


def published(bench: str, method: str, students: Collection[str] = ()) -> float:
    """What the literature prints for a method on the pair of a bench; NaN where it prints none, or
    where one of `students`, the networks that were trained, is not the one of that pair."""
    for prefix in BENCHES:
        pair = bench.removeprefix(prefix)
        if bench.startswith(prefix) and pair in PAIRS and {*students} <= {STUDENTS[pair]}:
            return PAIRS[pair].get(method, float("nan"))
    return float("nan")
