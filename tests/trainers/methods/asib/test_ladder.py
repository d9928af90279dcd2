"""Every rung of the ladder adds exactly one factor and leaves everything else alone."""

from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from pipeline.config import Config, ConfigError, compose
from pipeline.config.groups import options_of
from pipeline.identity import identity, run_key, teacher_numbers
from tests.trainers import tiny
from trainers.methods.asib.config import AsibConfig

# rung → (the rung below, the fields of the method that are its factor, before and after)
FACTORS: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "KD": ("CE", {"kd_target": ("none", "avg")}),
    "L0": ("KD", {"kd_target": ("avg", "auto")}),
    "L1": ("L0", {"bottleneck": (False, True)}),
    "L2": ("L1", {"num_stages": (1, 4)}),
    "L3": ("L2", {"adapt": ("adapters", "backbone")}),
    "L4": (
        "L3",
        {
            "student_levels": ([-1], [-1, -1, 1, 1]),
            "teacher_levels": ([1], [1, 1, 0, 0]),
            "freeze_bn": (False, True),
        },
    ),
}
# Next to the ladder: side branches, placebos and CE_matched, each against one rung.
BRANCHES: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "side_cccp_ppf": ("L4", {"method.bottleneck": (True, False)}),
    "side_asib_cccp": ("L2", {"method.target_view": ("two_view", "same")}),
    "L2_null": ("L2", {"method.placebo": ("none", "image")}),
    "L2_null_class": ("L2", {"method.placebo": ("none", "class")}),
    "L2_null_tokens": ("L2", {"method.placebo": ("none", "tokens")}),
    "L2_null_by_label": ("L2", {"method.placebo": ("none", "image_by_label")}),
    "L3_null": ("L3", {"method.placebo": ("none", "image")}),
    "L3_null_by_label": ("L3", {"method.placebo": ("none", "image_by_label")}),
    "KD_null": ("KD", {"method.placebo": ("none", "teachers")}),
    "KD_conf": ("KD", {"method.kd_target": ("avg", "weighted_conf")}),
    "self": ("KD", {"method.kd_target": ("avg", "self")}),
    "stack": ("KD", {"method.kd_target": ("avg", "stack")}),
    "CE_all": ("CE", {"data.every_label": (False, True)}),
    "CE_matched": ("CE", {"budget.matched_to": (None, "L4")}),
}
NEED_LABELS = ("KD_null", "L2_null_class")  # of every image
RUNGS = ("CE", *FACTORS)
# Without validation images, as in the public tables, there is no gate and so no ladder.
QUICK = ("digits_all", "cifar100")  # of different optimisers, budgets and networks
BENCHES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough)
    for name in options_of("bench")
    if not name.startswith("literature_")
]


@cache
def composed(cfg: str, bench: str = "digits_all") -> Config:
    return compose([f"cfg={cfg}", f"bench={bench}"])


def plain(config: Config) -> dict[str, Any]:
    """Every value by its dotted key."""

    def flat(value: Any, key: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for part in value for k, v in flat(value[part], f"{key}.{part}").items()}
        return {key.strip("."): value}

    return flat(asdict(config), "")


def differing(below: Config, rung: Config) -> dict[str, tuple[Any, Any]]:
    one, other = plain(below), plain(rung)
    return {
        key: (one.get(key, "absent"), other.get(key, "absent"))
        for key in sorted(one.keys() | other.keys())
        if one.get(key, "absent") != other.get(key, "absent")
    }


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("cfg", FACTORS)
def test_a_rung_differs_from_the_one_below_in_its_own_factor_alone(cfg: str, bench: str) -> None:
    below, factor = FACTORS[cfg]
    found = differing(composed(below, bench), composed(cfg, bench))
    assert found.pop("cfg") == (below, cfg)
    assert found == {f"method.{name}": values for name, values in factor.items()}


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("cfg", BRANCHES)
def test_what_is_next_to_the_ladder_differs_from_one_rung_in_one_factor(
    cfg: str, bench: str
) -> None:
    rung, factor = BRANCHES[cfg]
    if cfg in NEED_LABELS and composed(rung, bench).data.unlabelled:
        with pytest.raises(ConfigError, match="needs the label of every image"):
            composed(cfg, bench)
        return
    found = differing(composed(rung, bench), composed(cfg, bench))
    assert found.pop("cfg") == (rung, cfg)
    assert found == factor


def test_the_ladder_is_all_rungs_there_are() -> None:
    assert {*RUNGS, *BRANCHES} == set(options_of("cfg"))
    assert {*RUNGS, *BRANCHES} == {*tiny.RUNGS, "CE_matched", "CE_all"}
    order = ["CE"]
    for cfg, (below, _) in FACTORS.items():
        assert below == order[-1]
        order.append(cfg)


@pytest.mark.parametrize("bench", BENCHES)
def test_rungs_leave_a_change_of_the_bench_alone(bench: str) -> None:
    """The same override reaches every rung, whichever group it is in."""
    overrides = ["optim.lr=0.5", "budget.student_epochs=7", "method.tau=3", "mix.start=0.4"]
    for cfg in ("CE", *FACTORS):
        config = compose([f"cfg={cfg}", f"bench={bench}", *overrides])
        values = (config.optim.lr, config.budget.student_epochs, config.method.tau)
        assert (*values, config.mix.start) == (0.5, 7, 3.0, 0.4)
        assert config.bench.name == bench


def test_all_rungs_are_experiments_of_their_own() -> None:
    every = [rung for rung in (*RUNGS, *BRANCHES) if rung != "CE_all"]  # CE where all have labels
    keys = [run_key("distill", composed(cfg)) for cfg in every]
    assert len(set(keys)) == len(every)
    assert run_key("distill", compose(["cfg=L4", "bench=digits_all"])) == keys[every.index("L4")]


def test_rungs_share_their_teachers() -> None:
    configs = [composed(cfg) for cfg in RUNGS]
    for number in (0, 1):
        assert len({run_key("finetune", c, teacher=number) for c in configs}) == 1
    assert [len(teacher_numbers(c)) for c in configs] == [0, *[2] * 6]
    teachers = {str(identity("distill", c)["teachers"]) for c in configs if teacher_numbers(c)}
    assert len(teachers) == 1
    assert len(identity("distill", configs[1])["teachers"]) == 2
    assert len({run_key("finetune", configs[0], teacher=k) for k in (0, 1)}) == 2


def test_a_method_chosen_by_its_name_is_called_so_and_has_no_values_of_a_rung() -> None:
    assert compose(["method=asib"]).rung == "asib"
    assert (
        compose(["method=asib"]).method.adapt == AsibConfig().adapt != composed("L3").method.adapt
    )
    assert compose(["method=asib", "cfg=L1"]).rung == "L1"
    assert run_key("distill", compose(["method=asib", "cfg=L1"])) == run_key(
        "distill", composed("L1", "digits")
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("method=asib_l1", "cfg=L1"),
        ("method=asib_side_cccp_ppf", "cfg=side_cccp_ppf"),
        ("method=KD", "cfg=KD"),
        ("cfg=dkd", "method=dkd"),
        ("cfg=ce", "method=ce"),
    ],
)
def test_a_rung_given_as_a_method_names_the_rung_and_the_other_way_round(
    given: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{given}: unknown; did you mean {meant}\?"):
        compose([given])


def test_a_third_teacher_can_be_added() -> None:
    config = compose(["teacher@teacher.2=resnet20", "teacher.2.seed=2"])
    assert [t.seed for t in config.teachers()] == [0, 1, 2]


def test_other_data_under_a_bench_is_a_bench_of_its_own() -> None:
    assert compose(["data=fashion_mnist"]).bench.name == "digits-fashion_mnist"
    assert compose(["bench=fashion_mnist"]).bench.name == "fashion_mnist"
    assert compose(["data=digits", "data.train_limit=100"]).bench.name == "digits"
