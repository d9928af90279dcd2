"""Accuracy against the number of labels, as runs with unlabelled images log it."""

import pytest

from analysis.sections import across, labels
from analysis.sections.registry import analyze
from tests.analysis.frames import bench_runs, distill, runs

LIMIT = "params.data.train_limit"


def study(rungs: tuple[str, ...] = ("CE", "KD", "L3"), numbers=(50, 200), n: int = 5) -> list[dict]:
    return [
        distill(
            rung,
            seed,
            0.5 + number / 2000 + (rung == "L3") * 0.02 + seed * (seed + 1) / 3000,
            **{LIMIT: str(number), "params.data.unlabelled": "all"},
        )
        for number in numbers
        for rung in rungs
        for seed in range(n)
    ]


def test_each_number_of_labels_is_compared_on_its_own() -> None:
    found = labels.section(bench_runs(runs(*study())))
    rows = [row[:3] for row in found.tables[0].block.rows]
    assert rows == [(r, at, "5") for r in ("CE", "KD", "L3") for at in ("50", "200")]
    info = across.across_info(bench_runs(runs(*study())), labels.AXIS)
    assert [row.vs_kd.mean for row in info.rows[-2:]] == pytest.approx([0.02, 0.02])
    (axes,) = found.figures[0].figure.axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["50", "200"]


def test_a_missing_rung_is_named_with_its_command_and_one_number_is_no_study() -> None:
    some = [row for row in study() if (row["tags.rung"], row[LIMIT]) != ("L3", "50")]
    (gap,) = labels.section(bench_runs(runs(*some))).gaps
    assert gap.what == "L3 at 50 labels has not finished"
    assert "data.train_limit=50" in gap.command
    (gap,) = labels.section(bench_runs(runs(*study(numbers=(50,))))).gaps
    assert gap.what == "no run at several values of data.train_limit has finished"
    assert "data.train_limit=50,200,800,3200" in gap.command


def test_the_ladder_has_a_section_for_each_number_of_labels(store) -> None:
    for row in study(n=3):
        number, rung, seed = row[LIMIT], row["tags.rung"], row["tags.seed"]
        store.distill(
            "few",
            rung,
            int(seed),
            row["metrics.test/top1"],
            params={"data.train_limit": number, "data.unlabelled": "all"},
            tags={"run_key": f"{rung}{number}{seed}"},
        )
    ladders = [one for one in analyze(store.uri, "few", "ladder").sections if one.name == "ladder"]
    assert {one.bench for one in ladders} == {"toy labels=200", "toy labels=50"}
    (found,) = analyze(store.uri, "few", "labels").sections
    assert len(found.tables[0].block.rows) == 6
