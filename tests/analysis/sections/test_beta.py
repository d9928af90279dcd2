"""Accuracy, rate and distortion against β, on frames written by hand."""

import pytest

from analysis.sections import beta
from tests.analysis.frames import bench_runs, params, runs, with_beta
from trainers import metrics

WOBBLE = (0.0, 0.003, -0.003)  # of a difference, with a standard error of 0.0017


def test_beta_recommends_the_largest_within_one_standard_error_of_the_paired_difference():
    rows = [
        with_beta(b, s, v + s / 100 + WOBBLE[s] * (b == "0.01"), 0.8)
        for b, v in {"0": 0.90, "0.001": 0.905, "0.01": 0.904, "0.1": 0.5}.items()
        for s in (0, 1, 2)
    ]
    found = beta.beta_info(runs(*rows), "toy")
    assert [row.beta for row in found.rows] == [0.0, 0.001, 0.01, 0.1]
    assert found.recommended == 0.01
    assert found.rows[0].validation.mean == pytest.approx(0.91)
    assert found.rows[0].rate.mean == 3.0
    assert found.rows[0].distortion.n == 0
    assert not found.sampled


def test_what_the_latent_keeps_and_the_fusion_makes_of_it_has_intervals():
    restored = f"metrics.{metrics.SYNERGY_RESTORED}"
    rows = [
        with_beta(b, s, v, 0.8, **{restored: 0.7 + s / 100, f"metrics.{metrics.RATE}": 5.0 + s})
        for b, v in {"0": 0.90, "0.001": 0.8}.items()
        for s in (0, 1)
    ]
    found = beta.section(bench_runs(runs(*rows)))
    (_, kept) = found.tables
    assert kept.block.rows[0][1:] == ("5.500 [−0.853, 11.853]", "–", "70.50 [64.15, 76.85]")
    assert "in nats, on training batches" in found.notes[-1]


def test_a_latent_that_lost_the_label_at_the_recommended_beta_is_reported():
    def reported(distortion: float) -> tuple[str, ...]:
        rows = [
            with_beta(b, s, 0.8 + s / 10 + v, 0.8, **{f"metrics.{metrics.DISTORTION}": d + s / 100})
            for b, v, d in (("0", 0.0, 0.235), ("0.1", 0.01, distortion))
            for s in (0, 1)
        ]
        return beta.section(bench_runs(runs(*rows))).summary

    assert reported(1.799)[-1] == (
        "At β = 0.1 the latent tells less of the label: its distortion is 1.80 nats, at β = 0 0.24."
    )
    assert not any("tells less" in text for text in reported(0.3))


def grid(values: dict[str, float], spread: float = 0.01) -> list[dict]:
    """Two seeds of each β, validation `spread` apart."""
    return [with_beta(b, s, v + spread * s, 0.8) for b, v in values.items() for s in (0, 1)]


def test_where_the_largest_is_recommended_a_larger_one_is_to_be_tried():
    rows = grid({"0": 0.5, "0.01": 0.9})
    found = beta.section(bench_runs(runs(*rows)))
    assert found.summary[0].startswith("Recommended β: 0.01, the best by validation (90.50 [")
    assert found.summary[1].startswith("The rule: of the values that are at most one standard")
    (gap,) = found.gaps
    assert gap.what == "the recommended β is the largest that was tried"
    assert gap.command.startswith("python -m pipeline distill -m bench=toy ")
    assert gap.command.endswith("method.ib_beta=0.1 seed=0,1")
    rows += [with_beta("0.1", s, 0.5, 0.8) for s in (0, 1)]
    assert beta.section(bench_runs(runs(*rows))).gaps == ()


def test_values_that_all_tie_on_validation_recommend_none_and_ask_for_no_larger_one():
    found = beta.section(bench_runs(runs(*grid({"0": 0.9, "0.01": 0.9, "0.1": 0.9}))))
    assert found.summary == (
        "No β is recommended: all 3 values tie on validation (90.50 [84.15, 96.85] %; 2 seeds), "
        "which does not tell them apart.",
    )
    assert found.gaps == ()
    assert not any("*" in row[0] for row in found.tables[0].block.rows)


def test_some_that_tie_are_named_and_none_is_called_the_best():
    found = beta.section(bench_runs(runs(*grid({"0": 0.5, "0.001": 0.9, "0.01": 0.9, "0.1": 0.5}))))
    assert found.summary[0] == (
        "Recommended β: 0.01, the largest within one standard error of 2 that tie for the best "
        "(0.001, 0.01: 90.50 [84.15, 96.85] %); 2 seeds."
    )


def test_a_value_that_is_worse_at_every_seed_is_not_one_that_ties():
    """However much the seeds vary, which all β share."""
    found = beta.beta_info(runs(*grid({"0": 0.902, "0.01": 0.901, "0.1": 0.9}, 0.1)), "toy")
    assert (found.within, found.recommended) == ((0.0,), 0.0)


def test_of_a_flat_curve_the_smallest_is_recommended():
    values = {"0": (0.90, 0.91, 0.92), "0.01": (0.91, 0.92, 0.901), "0.1": (0.92, 0.90, 0.915)}
    rows = [with_beta(b, s, v, 0.8) for b, of in values.items() for s, v in enumerate(of)]
    found = beta.section(bench_runs(runs(*rows)))
    assert found.summary[0].startswith("Recommended β: 0, the smallest within one standard error")
    assert found.summary[0].endswith(
        "All 3 values lie within one standard error of the best: none is shown to differ, and the "
        "rule alone chooses."
    )
    assert found.gaps == ()  # a larger one would tie as well


def test_a_beta_is_not_recommended_for_the_seed_that_it_lacks():
    values = {"0": (0.819, 0.824, 0.811), "0.001": (0.823, 0.827, 0.806), "0.01": (0.822, 0.826)}
    rows = [with_beta(b, s, v, 0.8) for b, of in values.items() for s, v in enumerate(of)]
    printed = beta.section(bench_runs(runs(*rows))).sentences[0]
    assert printed.startswith("Recommended β: 0.001, the best by validation (82.50 [")
    assert "82.50 [" in printed  # 0.01 is the best only where the bad seed is missing
    assert "; 2 seeds that every β has." in printed
    rows = [with_beta("0", 0, 0.8, 0.8), with_beta("0.001", 1, 0.9, 0.8)]
    assert beta.beta_info(runs(*rows), "toy").recommended is None
    assert "No β is recommended" in beta.section(bench_runs(runs(*rows))).sentences[0]


def test_beta_zero_is_apart_on_a_logarithmic_axis():
    x = beta.positions([0.0, 1e-3, 1e-1])
    assert x == pytest.approx([-4.5, -3.0, -1.0])
    rows = [with_beta(b, 0, 0.9, 0.8) for b in ("0", "0.001", "0.1")]
    lowest = beta.draw(beta.beta_info(runs(*rows), "toy")).axes[-1]
    assert [tick.get_text() for tick in lowest.get_xticklabels()] == ["0", "0.001", "0.1"]


def test_rate_and_distortion_have_axes_of_their_own():
    logged = {f"metrics.{metrics.DISTORTION}": 0.05}
    rows = [with_beta(b, s, 0.9, 0.8, **logged) for b in ("0", "0.01") for s in (0, 1)]
    axes = beta.draw(beta.beta_info(runs(*rows), "toy")).axes
    assert [one.get_ylabel() for one in axes] == ["top-1, %", "rate, nats", "distortion, nats"]
    assert [len(one.containers) for one in axes] == [2, 1, 1]
    (low, high), (small, large) = (one.get_ylim() for one in axes[1:])
    assert small < 0.05 < large < low < 3.0 < high
    unmeasured = [with_beta(b, 0, 0.9, 0.8) for b in ("0", "0.01")]
    axes = beta.draw(beta.beta_info(runs(*unmeasured), "toy")).axes
    assert [one.get_ylabel() for one in axes] == ["top-1, %", "rate, nats"]


def test_one_seed_has_no_standard_error_and_so_no_recommendation():
    rows = [with_beta(b, 0, v, 0.8) for b, v in {"0": 0.9, "0.01": 0.92, "0.1": 0.92}.items()]
    assert beta.beta_info(runs(*rows), "toy").recommended is None
    found = beta.section(bench_runs(runs(*rows)))
    assert found.sentences[0] == (
        "No β is recommended: 1 seed, so that there is no standard error. The highest by "
        "validation: β = 0.01, 0.1 (92.00 %), no more than that."
    )
    assert not any("*" in row[0] for row in found.tables[0].block.rows)
    assert "Dotted" not in found.figures[0].caption


def test_intervals_over_beta_are_drawn_and_the_caption_says_of_how_many():
    rows = [with_beta(b, s, 0.9, 0.8 + s / 50) for b in ("0", "0.01") for s in (0, 1, 2)]
    rows.append(with_beta("0.1", 0, 0.91, 0.8))
    found = beta.section(bench_runs(runs(*rows)))
    left = found.figures[0].figure.axes[0]
    bars = left.containers[1].lines[2][0].get_segments()  # of the test accuracies
    info = beta.beta_info(runs(*rows), "toy")
    expected = [(100 * row.test.low, 100 * row.test.high) for row in info.rows[:2]]
    assert [tuple(bar[:, 1]) for bar in bars[:2]] == [pytest.approx(pair) for pair in expected]
    assert bars[2][0, 1] == bars[2][1, 1]  # one seed has no bar
    assert "n = 3 (β = 0), 3 (β = 0.01), 1 (β = 0.1)" in found.figures[0].caption
    assert any(line.get_linewidth() == 3 for line in left.lines)  # between β = 0 and the others
    assert "Grey bar: left of it β = 0" in found.figures[0].caption
    validation, test = (bars.lines[0].get_xdata() for bars in left.containers)
    assert (test - validation > 0.05).all()  # so that no bar covers another


def test_beta_takes_no_run_that_differs_in_more():
    rows = [with_beta(b, 0, 0.9, 0.8) for b in ("0.001", "0.01")]
    rows.append(with_beta("0.1", 0, 0.99, 0.99, **params(method__tau=2)))
    found = beta.section(bench_runs(runs(*rows)))
    assert [row[0].split()[0] for row in found.tables[0].block.rows] == ["0.001", "0.01"]
    (gap,) = found.gaps
    assert gap.what == "β = 0 is not there"
    assert gap.command.endswith("cfg=L1 method.ib_beta=0 seed=0")


def test_a_recommended_beta_is_reported_with_the_warnings_of_its_runs():
    """The largest is the best, and its latent carries nothing."""
    ill = {"tags.health": "sigma_at_one,gate_always_open"}
    rows = grid({"0.001": 0.8}, 0.0)
    rows += [row | ill for row in grid({"0.1": 0.9}, 0.0)]
    found = beta.section(bench_runs(runs(*rows)))
    printed = found.sentences
    assert printed[0].startswith("Recommended β: 0.1")
    assert found.summary == printed[:3]
    assert printed[2].startswith(
        "Runs at β = 0.1 gave the warning sigma_at_one: The latent's standard"
    )
    assert "gate" not in printed[3]
    assert [gap.what for gap in found.gaps] == ["β = 0 is not there"]  # and no larger one


def test_equal_values_recommend_none_where_the_largest_gave_a_warning():
    rows = grid({"0": 0.9}) + [row | {"tags.health": "sigma_at_one"} for row in grid({"0.1": 0.9})]
    found = beta.section(bench_runs(runs(*rows)))
    assert found.summary[0].startswith("No β is recommended")
    assert found.gaps == ()
