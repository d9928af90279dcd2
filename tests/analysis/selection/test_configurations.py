"""A mean over seeds is never taken over different configurations."""

import pandas as pd
import pytest

from analysis import tags
from analysis.runs import Selection
from analysis.selection.configurations import by_overlap, not_shared, one_configuration, shown_with
from tests.analysis.frames import bench_runs, distill, params, runs

ANOTHER = "To show another configuration, leave out the others: tag.variant=…, since=… or until=…"


def reasons(frame: pd.DataFrame) -> dict[str, str]:
    """Run id to reason, for the runs that do not count."""
    kept, left_out = one_configuration(Selection(frame, frame[:0].assign(reason="")))
    assert set(kept["run_id"]) | set(left_out["run_id"]) == set(frame["run_id"])
    return dict(left_out[["run_id", "reason"]].to_numpy().tolist())


def test_of_equals_the_configuration_that_was_started_last_is_kept():
    frame = runs(
        distill("L3", 0, 0.5, **params(method__ib_beta=0.1, a=1, b=2, c=3)),
        distill("L3", 0, 0.6, **params(method__ib_beta=0.2, a=2, b=3, c=3)),
    )
    assert reasons(frame) == {"r0": "other configuration (method.ib_beta=0.1, a=1, …)"}


def test_the_number_of_seeds_and_the_accuracy_choose_no_configuration():
    good = [distill("L3", seed, 0.9, **params(a=1)) for seed in range(3)]
    frame = runs(*good, distill("L3", 0, 0.1, **params(a=2)))
    assert set(reasons(frame).values()) == {"other configuration (a=1)"}


def test_a_label_names_parameters_of_variants_first_and_as_many_as_distinguish():
    variants = variant("L3", 0, "d=1", a=1, b=1, c=1, d=1), variant("L3", 0, a=0, b=0, c=0, d=0)
    assert reasons(runs(*variants)) == {"r0": "other configuration (d=1, a=1, …)"}
    alike = [distill("L3", 0, 0.5, **params(a=1, b=1, c=c)) for c in (1, 2)]
    found = reasons(runs(*alike, *[distill("L3", s, 0.5, **params(a=0, b=0, c=0)) for s in (0, 1)]))
    assert found == {f"r{c - 1}": f"other configuration (a=1, b=1, c={c})" for c in (1, 2)}


def test_a_parameter_that_only_one_configuration_has_is_named():
    frame = runs(distill("L3", 0, 0.5, **params(a=1)), distill("L3", 0, 0.6))
    assert reasons(frame) == {"r0": "other configuration (a=1)"}


def test_options_of_teachers_are_no_configuration_of_a_run_without_teachers():
    frame = runs(
        *(
            distill("CE", 0, 0.5, **params(teacher__0__model=f"net{k}", overlap=k, optim__lr=k))
            | {"tags.teachers": ""}
            for k in (1, 2)
        )
    )
    assert reasons(frame) == {"r0": "other configuration (optim.lr=1)"}
    assert reasons(frame.drop(columns="params.optim.lr")) == {"r0": "older run of the same seed"}


def test_seeds_devices_and_overrides_are_no_configuration():
    frame = runs(
        *(
            distill(
                "L3",
                seed,
                0.5,
                **params(seed=seed, teacher__seed=seed, runtime__device=seed, data__root=seed),
            )
            for seed in range(3)
        )
    )
    assert reasons(frame) == {}


def test_the_newest_run_of_a_seed_counts():
    frame = runs(distill("L3", 0, 0.5), distill("L3", 0, 0.6), distill("L3", 1, 0.6))
    assert reasons(frame) == {"r0": "older run of the same seed"}


def test_benches_and_rungs_are_apart_and_a_run_needs_a_seed():
    nameless = distill("CE", 0, 0.5) | {"tags.seed": None}
    frame = runs(
        distill("L3", 0, 0.5), distill("L2", 0, 0.5), distill("L3", 0, 0.5, bench="b"), nameless
    )
    assert reasons(frame) == {"r3": "no seed that is a whole number"}


def test_earlier_reasons_stay():
    frame = runs(distill("L3", 0, 0.5), distill("L3", 1, 0.5))
    selection = Selection(frame[:1], frame[1:].assign(reason="failed"))
    assert one_configuration(selection).left_out["reason"].tolist() == ["failed"]


def test_no_runs_at_all():
    empty = pd.DataFrame(columns=["run_id", "start_time"])
    assert one_configuration(Selection(empty, empty.assign(reason=""))).kept.empty


def test_budgets_that_differ_between_rungs_are_reported():
    frame = runs(
        distill("CE", 0, 0.5, **params(budget__student_epochs=80, data__views=4)),
        distill("L3", 0, 0.5, **params(budget__student_epochs=2, data__views=4)),
        distill("KD", 0, 0.5, **params(budget__student_epochs=80, data__views=4)),
        distill("L3", 0, 0.5, bench="b", **params(budget__student_epochs=5)),
    )
    assert not_shared(frame, "toy") == (
        "budget.student_epochs is not the same everywhere (2: L3; 80: CE, KD)",
    )
    assert not_shared(frame, "b") == ()


def test_an_option_that_older_runs_lack_is_no_difference():
    """Nor is the limit of the teachers' images: a run without teachers has none."""
    frame = runs(
        distill("L3", 0, 0.5, **params(data__later=None, data__teacher_limit=24000)),
        distill("KD", 0, 0.5, **params(data__teacher_limit=24000, numerics__compile="False")),
        distill("L3", 1, 0.5, **params(data__teacher_limit=24000)),
        distill("CE", 0, 0.5, **params(data__teacher_limit=None)),
    )
    assert reasons(frame) == {}
    assert not_shared(frame, "toy") == ()


@pytest.mark.parametrize("tag", ["setting", "variant"])
def test_the_configuration_of_most_of_the_other_rungs_is_kept(tag):
    """Rungs are compared in one setting and at one learning rate, whatever was run last."""
    common, tried = {f"tags.{tag}": "optim.lr=0.1"}, {f"tags.{tag}": ""}
    ladder = [distill(rung, 0, 0.5, **params(a=1)) | common for rung in ("CE", "KD", "L3")]
    first_try = distill("L3", 0, 0.2, **params(a=2)) | tried
    other = {"r3": "other configuration (a=2)"}
    assert reasons(runs(*ladder, first_try)) == other
    moved = runs(first_try, *ladder)
    assert set(reasons(moved)) == {"r0"}
    assert "as most of the other rungs; left aside: a=2 (1 run)" in shown(moved)[0]


def test_a_run_that_taught_another_rung_does_not_take_the_place_of_the_control():
    """The teacher of self-training at another weight decay than CE is a second configuration."""
    rows = []
    for seed in (0, 1):
        key, recipe = {"tags.run_key": f"own{seed}"}, {"tags.recipe": "own"}
        rows += [
            distill("CE", seed, 0.7, **params(decay=2)) | {"tags.recipe": "tuned"},
            distill("CE", seed, 0.6, **params(decay=1)) | key | recipe,
            distill("self", seed, 0.8) | {"tags.own_teacher": f"own{seed}"},
        ]
    left = {"r1": "other configuration (decay=1)", "r4": "other configuration (decay=1)"}
    assert reasons(runs(*rows)) == left
    assert "the one that does not teach another rung; left aside" in shown(runs(*rows))[0]
    assert reasons(runs(*(row for row in rows if row.get("tags.recipe") != "tuned"))) == {}


def test_runs_of_older_versions_are_distinguished_by_their_recipe_keys():
    """Neither parameters nor a variant: the recipe of the newest run is kept, all its seeds."""
    rows = [
        distill("L3", seed, 0.5) | {"tags.recipe": recipe}
        for recipe, seed in (("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1))
    ]
    found = reasons(runs(*rows))
    assert set(found) == {"r0", "r1", "r2"}
    assert set(found.values()) == {"other configuration (other teachers or numerics)"}


def test_a_switch_that_differs_between_fused_rungs_is_reported():
    fused = {"method__kd_target": "auto", "method__num_stages": 4}
    frame = runs(
        distill("L2", 0, 0.2, **params(**fused, method__gate=0.9)),
        distill("L3", 0, 0.2, **params(**(fused | {"method__num_stages": 1}), method__gate=0.1)),
        distill("CE", 0, 0.2, **params(method__kd_target="none", method__gate=0.5)),
    )
    assert not_shared(frame, "toy") == (
        "method.gate is not the same everywhere (0.1: L3; 0.9: L2)",
    )


def test_each_overlap_is_a_bench_and_shares_the_control():
    half = {"tags.overlap": "50", "tags.teachers": "a,b"}
    whole = {"tags.teachers": "a,b"}
    frame = runs(
        distill("CE", 0, 0.5),
        distill("KD", 0, 0.6) | whole,
        distill("KD", 0, 0.7) | half,
        distill("L3", 0, 0.8) | half | {"tags.overlap": "0"},
        distill("CE", 0, 0.4, bench="b"),
    )
    found = by_overlap(frame)
    columns = ["tags.bench", "tags.rung", "metrics.test/top1"]
    assert sorted(found[columns].itertuples(index=False, name=None)) == [
        ("b", "CE", 0.4),
        ("toy", "CE", 0.5),
        ("toy", "KD", 0.6),
        ("toy overlap=0", "CE", 0.5),
        ("toy overlap=0", "L3", 0.8),
        ("toy overlap=50", "CE", 0.5),
        ("toy overlap=50", "KD", 0.7),
    ]
    assert found.index.is_unique
    kept, left_out = one_configuration(Selection(found, found[:0].assign(reason="")))
    assert len(kept) == 7
    assert left_out.empty


def test_without_an_overlap_nothing_is_changed():
    frame = runs(distill("CE", 0, 0.5), distill("KD", 0, 0.6) | {"tags.teachers": "a,b"})
    assert by_overlap(frame) is frame


def shown(frame: pd.DataFrame) -> tuple[str, ...]:
    return shown_with(one_configuration(Selection(frame, frame[:0].assign(reason=""))), "toy")


def variant(rung: str, seed: int, text: str = "", **parameters) -> dict:
    """A run with a tag `variant`."""
    return distill(rung, seed, 0.5) | {"tags.variant": text} | params(**parameters)


def test_a_rungs_default_is_shown_and_the_runs_of_a_study_of_it_are_counted():
    """A study of β with more seeds than the ladder, run later."""
    ladder = [
        variant(rung, seed, method__ib_beta=0.001) for rung in ("L1", "L2") for seed in (0, 1)
    ]
    study = [
        variant("L2", seed, f"method.ib_beta={beta}", method__ib_beta=beta)
        for beta in (0.0, 0.01, 0.1)
        for seed in (0, 1, 2)
    ]
    frame = runs(*ladder, *study)
    assert shown(frame) == (
        "L2 is shown with method.ib_beta=0.001 (2 runs), its default; left aside: "
        "method.ib_beta=0.0 (3 runs), method.ib_beta=0.01 (3 runs), method.ib_beta=0.1 (3 runs); "
        "what=beta compares them.",
        ANOTHER,
    )
    kept = one_configuration(Selection(frame, frame[:0].assign(reason=""))).kept
    assert kept["configuration"].tolist() == ["", "", *["method.ib_beta=0.001"] * 2]
    assert shown(frame[frame["tags.rung"] == "L1"]) == ()
    alone = frame[frame["tags.rung"] == "L2"]
    assert "method.ib_beta=0.001 (2 runs), its default" in shown(alone)[0]


def test_without_its_default_the_newest_configuration_is_shown():
    frame = runs(*[variant("L2", 0, f"a={a}", method__a=a) for a in (1, 2)])
    assert shown(frame) == (
        "L2 is shown with method.a=2 (1 run), the one that was started last; left aside: "
        "method.a=1 (1 run).",
        ANOTHER,
    )


def test_another_student_is_another_setting():
    frame = runs(
        distill("CE", 0, 0.5, **params(student__model="resnet8")),
        distill("L3", 0, 0.5, **params(student__model="resnet20")),
    )
    assert not_shared(frame, "toy") == (
        "student.model is not the same everywhere (resnet20: L3; resnet8: CE)",
    )


def test_data_with_another_digest_are_another_setting():
    frame = runs(
        *[
            distill(rung, 0, 0.5, **{"tags.setting": one})
            for rung, one in (("KD", "a"), ("CE", "a"), ("L3", "b"))
        ]
    )
    assert not_shared(frame, "toy") == ("the data are not the same everywhere (CE, KD; L3)",)
    matched = frame.assign(**{"tags.matched_to": [None, None, "L4"]})
    assert not_shared(matched, "toy") == ()


def test_another_device_or_version_of_torch_is_named() -> None:
    def one(rung: str, seed: int, device: str, torch: str) -> dict:
        own = {f"tags.{tags.DEVICE}": device, f"tags.{tags.TORCH}": torch}
        return distill(rung, seed, 0.5 + seed / 100, **own)

    same = [one(rung, 0, "cpu", "2.15.0") for rung in ("CE", "KD")]
    assert not_shared(bench_runs(runs(*same)).kept, "toy") == ()
    other = [*same, one("L4", 0, "NVIDIA H100", "2.15.0"), distill("old", 0, 0.4)]
    assert not_shared(bench_runs(runs(*other)).kept, "toy") == (
        "device is not the same everywhere (NVIDIA H100: L4; cpu: CE, KD)",
    )
