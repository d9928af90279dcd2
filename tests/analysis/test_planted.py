"""Stores with a planted truth: the whole report has to tell it, in each of its forms."""

import itertools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest

from analysis import tags
from analysis.render import wording
from analysis.render.html import as_html
from analysis.render.markdown import as_markdown
from analysis.render.text import as_terminal
from analysis.report_model import Report
from analysis.sections.registry import analyze
from trainers import metrics

RUNGS, SEEDS = ("CE", "KD", "L3", "L4"), range(5)
BASE = {"CE": 0.65, "KD": 0.70, "L3": 0.70, "L4": 0.70}  # no rung is better than KD
Tests = Mapping[tuple[str, int], float | None]


class Reported(NamedTuple):
    """What a reader of the report sees: its findings, and each form as plain words."""

    found: Report
    forms: tuple[str, ...]

    @property
    def summary(self) -> str:
        """All sentences on top."""
        return "\n".join(line for _, lines in wording.summary(self.found) for line in lines)

    @property
    def warnings(self) -> list[str]:
        """What is in the box of warnings."""
        return wording.warnings(self.found)

    def everywhere(self, words: str) -> bool:
        """Whether all forms say so."""
        return all(words in form for form in self.forms)


def accuracies(**effects: float) -> dict[tuple[str, int], float | None]:
    """By rung and seed: a seed's own level, noise of 0.1 points a run, effects in points."""
    noise = np.random.default_rng(3)
    return {
        (rung, seed): BASE[rung] + effects.get(rung, 0.0) / 100 + seed / 100 + noise.normal(0, 1e-3)
        for rung in RUNGS
        for seed in SEEDS
    }


@pytest.fixture
def reported(store, request) -> Callable[..., Reported]:
    """Plants a store of these accuracies (with `changes` to runs, and a `study` of β next to them:
    values of a rung) and reads its whole report."""

    name = request.node.name

    def add(rung: str, seed: int, test: float | None, variant: str = "", **change) -> None:
        logged = {metrics.VAL_TOP1: [(0, 0.4), (1, test or 0.5)], metrics.RUN_SECONDS: 10.0}
        logged |= {metrics.TEST_READS: 1.0, f"{metrics.HEALTH}non_finite": 0.0}
        line = f"bench=toy cfg={rung} {variant} seed={seed}"
        store.distill(
            name,
            rung,
            seed,
            test,
            metrics=logged | change.pop("metrics", {}),
            params={"overrides": line, "method.ib_beta": "0.001"} | change.pop("params", {}),
            tags={tags.VARIANT: variant} | change.pop("tags", {}),
            **change,
        )

    def plant(
        tests: Tests,
        changes: Mapping[tuple[str, int], dict] = MappingProxyType({}),
        study: tuple[str, tuple[str, ...]] = ("", ()),
        experiment: str = "",
    ) -> Reported:
        nonlocal name
        name = request.node.name + experiment
        for (rung, seed), test in tests.items():
            add(rung, seed, test, **dict(changes.get((rung, seed), {})))
        for beta, seed in itertools.product(study[1], SEEDS):
            own = {"params": {"method.ib_beta": beta}, "tags": {tags.RUN_KEY: f"{beta}-{seed}"}}
            add(study[0], seed, 0.9, f"method.ib_beta={beta}", **own)
        found = analyze(store.uri, name)
        html = re.sub(r"<[^>]+>", " ", as_html(found))
        texts = (html, as_markdown(found), as_terminal(found))
        plain = (text.replace("\\\n", "") for text in texts)  # a command continues in the next line
        return Reported(found, tuple(" ".join(text.split()) for text in plain))

    return plant


def test_no_effect_is_reported_as_none(reported):
    report = reported(accuracies())
    assert re.search(r"Primary claim: L4 − KD: .* n = 5, .*: not significant\.", report.summary)
    assert report.everywhere("Not significantly different from KD: L3.")
    shown = re.findall(r"(\S+) − \S+: [^:]*?: (?:better|worse) than", report.summary)
    assert set(shown) == {"KD"}, "the control that was planted five points above CE"
    assert report.warnings == []
    assert report.everywhere("Controls: CE and KD;")


def test_half_a_point_is_reported_with_its_size_and_of_its_rung_alone(reported):
    report = reported(accuracies(L4=0.5))
    claim = re.search(
        r"Primary claim: L4 − KD: \+(\S+) points, 95 % interval \+(\S+) to \+(\S+), n = 5, .*, "
        r"1\.00 × the time: better than each of CE and KD\.",
        report.summary,
    )
    assert claim
    mean, low, high = map(float, claim.groups())
    assert low < mean < high
    assert low <= 0.5 <= high
    assert report.everywhere(claim[0])
    assert "Not significantly different from KD: L3." in report.summary
    assert report.warnings == []


def test_a_twin_is_a_warning_and_no_finding(reported):
    tests = accuracies(L3=0.5)
    twins = tests | {("L4", seed): tests["L3", seed] for seed in SEEDS}
    weights = {
        (rung, seed): {"metrics": {f"{metrics.STATE}student": 7.0 + seed}}
        for rung in ("L3", "L4")
        for seed in SEEDS
    }
    assert reported(twins).warnings == [], "equal accuracies alone are no twins"
    report = reported(twins, weights, experiment="weights")
    (warning,) = report.warnings
    assert warning == "L4 − L3: the same weights at each of 5 seeds: they are one experiment."
    assert report.everywhere(warning)


def test_a_seed_that_failed_is_no_number_and_has_a_command(reported):
    failed = {("L4", 4): {"status": "FAILED"}}
    report = reported(accuracies(L4=0.5) | {("L4", 4): None}, failed)
    assert re.search(
        r"Primary claim: L4 − KD: .*, n = 4, .*: better than each of CE and KD\.", report.summary
    )
    assert "Not significantly different from KD: L3." in report.summary
    assert report.warnings == ["failed: 1 run"]
    assert report.everywhere("L4: 1 of 5 seeds failed. Had they reached 0 or 100 %, L4 − KD would")
    command = "python -m pipeline distill bench=toy runtime.experiment="
    assert report.everywhere("L4 has no seed 4")
    assert all(re.search(rf"{command}\S+ cfg=L4 seed=4", form) for form in report.forms)
    ladder = next(study for study in report.found.sections if study.name == "ladder")
    assert "Left out: 1 run (1 failed)." in ladder.notes
    assert [row[:2] for row in ladder.tables[0].block.rows] == [
        ("CE", "5"),
        ("KD", "5"),
        ("L3", "5"),
        ("L4", "4"),
    ]


@pytest.mark.parametrize(
    "leak",
    [{metrics.TEST_READS: 2.0}, {metrics.TEST_TOP1: [(1, 0.70), (2, 0.73)]}],
    ids=["counted", "silent"],
)
def test_a_run_that_read_its_test_split_twice_is_named(reported, leak):
    report = reported(accuracies(), {("L4", 2): {"metrics": leak}})
    assert report.warnings == ["the test split was read more than once: 1 run"]
    assert report.everywhere(report.warnings[0])
    health = next(study for study in report.found.sections if study.name == "health")
    assert health.tables[0].block.rows == (
        ("the test split was read more than once", "1", "distill-L4-toy-s2"),
    )


def test_rungs_of_other_settings_are_a_warning_and_not_compared(reported):
    longer = {("L4", seed): {"params": {"budget.student_epochs": "80"}} for seed in SEEDS}
    others = {
        (rung, seed): {"params": {"budget.student_epochs": "20"}}
        for rung in RUNGS[:-1]
        for seed in SEEDS
    }
    report = reported(accuracies(L4=9.0), longer | others)
    assert report.warnings == [
        "budget.student_epochs is not the same everywhere (20: CE, KD, L3; 80: L4)."
    ]
    assert report.everywhere(report.warnings[0])
    claim = "L4 − CE: not compared; what differs: budget.student_epochs (80 and 20)."
    assert report.everywhere(f"Primary claim: {claim}")


def test_a_study_next_to_the_ladder_does_not_take_its_place(reported):
    report = reported(accuracies(), study=("L3", ("0.0", "0.1")))
    sentence = (
        "L3 is shown with method.ib_beta=0.001 (5 runs), its default; left aside: "
        "method.ib_beta=0.0 (5 runs), method.ib_beta=0.1 (5 runs); "
        "what=beta compares them."
    )
    ladder = next(study for study in report.found.sections if study.name == "ladder")
    assert sentence in ladder.sentences
    assert sentence in report.summary
    label, n, test = ladder.tables[0].block.rows[2][:3]
    assert (label, n) == ("L3 (ib_beta=0.001)", "5")
    assert float(test.split()[0]) < 75  # not the 90 of the study
    assert "Not significantly different from KD: L3." in report.summary
    (warning,) = report.warnings
    assert warning.startswith("L3 ran in 3 configurations, its controls in 1 at most")
