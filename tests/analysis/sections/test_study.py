"""A report for any study: its trials, what mattered, and which to take."""

import numpy as np
import pytest

from analysis import tags
from analysis.sections import study
from analysis.sections.registry import SECTIONS, WHAT
from tests.analysis.frames import bench_runs, distill, params, runs
from trainers import metrics

VAL = f"metrics.{metrics.BEST_VAL_TOP1}"


def trial(number: int, seed: int, val: float, seconds: float = 10.0, **options) -> dict:
    """A run of a study: options as overrides and as logged parameters."""
    words = " ".join(f"{key.replace('__', '.')}={value}" for key, value in options.items())
    row = {VAL: val, f"tags.{tags.RECIPE}": f"r{number}", f"tags.{tags.STUDY}": "mine"}
    logged = params(overrides=f"cfg=L3 {words} seed={seed}", **options)
    return distill("L3", seed, 0.5, seconds=seconds, **row, **logged)


def joint(n: int = 30) -> list[dict]:
    """The learning rate matters, the temperature does not."""
    draw, rows = np.random.default_rng(0), []
    for number in range(n):
        lr, tau = 10 ** draw.uniform(-4, -1), draw.uniform(1, 8)
        val = 0.8 - 0.05 * (np.log10(lr) + 2.5) ** 2
        rows.append(trial(number, 0, float(val), optim__lr=f"{lr:.3g}", method__tau=f"{tau:.3g}"))
    return rows


def test_the_options_that_matter_come_first_and_are_drawn() -> None:
    found = study.section(bench_runs(runs(*joint())))
    importance = dict(found.tables[1].block.rows)
    assert list(importance) == ["optim.lr", "method.tau"]
    assert float(importance["optim.lr"]) > 80
    slices, history = (figure.figure for figure in found.figures)
    assert [axes.get_xlabel() for axes in slices.axes] == ["lr", "tau"]
    assert [axes.get_xscale() for axes in slices.axes] == ["log", "linear"]
    best = history.axes[0].lines[1].get_ydata()
    assert (np.diff(best) >= 0).all()
    assert found.sentences[0].startswith("The best of 30 configurations on validation: ")
    assert "standard errors too high by chance" in found.sentences[0]
    assert found.sentences[1] == "One seed has no standard error: the rule chooses none."


def test_of_those_that_tie_by_paired_differences_the_fastest_is_chosen() -> None:
    values = {
        1: ((0.80, 0.84, 0.82), 30.0),
        2: ((0.81, 0.83, 0.819), 10.0),  # ties with it
        3: ((0.79, 0.83, 0.81), 1.0),  # worse at every seed, though by less than seeds vary
    }
    rows = [
        trial(number, seed, val, seconds, optim__lr=number)
        for number, (of, seconds) in values.items()
        for seed, val in enumerate(of)
    ]
    found = study.section(bench_runs(runs(*rows)))
    assert [row[0] for row in found.tables[0].block.rows] == ["lr=1", "lr=2 *", "lr=3"]
    assert "of 2 that tie: lr=2, " in found.sentences[1]


def test_rows_have_the_names_of_the_studys_file() -> None:
    """Also the runs of a row that another command made."""
    rows = [trial(k, s, 0.5 + k / 10 + s / 100, optim__lr=k) for k in (1, 2) for s in (0, 1)]
    for row in rows[:3]:
        row[f"tags.{tags.TRIAL}"] = row[f"tags.{tags.RECIPE}"][1]
    trials = [
        {f"tags.{tags.STAGE}": "trial", f"tags.{tags.STUDY}": of, f"tags.{tags.TRIAL}": number}
        | params(row=name)
        for of, number, name in (("mine", "1", "slow"), ("mine", "2", "fast"), ("other", "1", "x"))
    ]
    found = study.section(bench_runs(runs(*rows, *trials)))
    assert [row[0] for row in found.tables[0].block.rows] == ["fast *", "slow"]
    assert "on validation: fast, " in found.sentences[0]


def test_a_ceiling_is_shown_and_not_chosen() -> None:
    rows = [
        trial(k, s, 0.5 + k / 10 + s / 100, optim__lr=k) | params(data__every_label=str(k == 3))
        for k in (1, 2, 3)
        for s in (0, 1)
    ]
    found = study.section(bench_runs(runs(*rows)))
    assert [row[0] for row in found.tables[0].block.rows] == ["lr=3 (ceiling)", "lr=2 *", "lr=1"]
    assert found.sentences[0].startswith("The best of 2 configurations on validation: lr=2, ")
    assert "A ceiling has every label: it is shown, and not chosen." in found.notes


def test_several_studies_are_not_mixed_and_nothing_varied_is_a_gap() -> None:
    other = {f"tags.{tags.STUDY}": "other"}
    rows = [*joint(5), trial(9, 0, 0.99, optim__lr=9, method__tau=1) | other]
    assert len(study.study_info(runs(*rows), "toy").trials) == 5
    (gap,) = study.section(bench_runs(runs(trial(0, 0, 0.5)))).gaps
    assert gap.what.startswith("fewer than two configurations have finished")
    assert study.section(bench_runs(runs(distill("L3", 0, 0.5)))).empty


def test_it_is_offered_and_no_part_of_the_comprehensive_report() -> None:
    assert "study" in WHAT
    assert "study" not in SECTIONS


def test_named_values_are_categories() -> None:
    rows = [
        trial(k, s, 0.5 + 0.1 * (name == "adamw") + s / 100 + k / 1000, optim__name=name)
        for k, name in enumerate(("sgd", "adamw", "sgd", "adamw"))
        for s in (0, 1)
    ]
    found = study.study_info(runs(*rows), "toy")
    assert found.importance == pytest.approx({"optim.name": 1.0})
    (axes,) = study.draw_slices(found, ["optim.name"]).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["adamw", "sgd"]
