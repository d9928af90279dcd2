"""Accuracy against the overlap of the teachers, as the study of it logs its runs."""

import pytest

from analysis import tags
from analysis.sections import across, overlap
from analysis.sections.registry import analyze
from tests.analysis.frames import bench_runs, distill, runs

TEACHERS = {f"tags.{tags.TEACHERS}": "a,b"}


def study(rungs: tuple[str, ...] = ("KD", "L3"), overlaps=(0, 50, 100), n: int = 5) -> list[dict]:
    """What the pipeline logs: no tag at 100, no teachers of CE."""
    rows = [distill("CE", s, 0.5 + s / 100, **{f"tags.{tags.TEACHERS}": ""}) for s in range(n)]
    for value in overlaps:
        tag = {} if value == 100 else {f"tags.{tags.OVERLAP}": str(value)}
        rows += [
            distill(
                r,
                s,
                0.5 + value / 1000 + (r == "L3") * 0.02 + s * (s + 1) / 3000,
                **TEACHERS,
                **tag,
            )
            for r in rungs
            for s in range(n)
        ]
    return rows


def test_full_teachers_are_an_overlap_of_100_and_ce_is_one_line() -> None:
    found = overlap.section(bench_runs(runs(*study())))
    (table,) = found.tables
    assert [row[:3] for row in table.block.rows] == [
        ("CE", "all", "5"),
        ("KD", "0", "5"),
        ("KD", "50", "5"),
        ("KD", "100", "5"),
        ("L3", "0", "5"),
        ("L3", "50", "5"),
        ("L3", "100", "5"),
    ]
    info = across.across_info(bench_runs(runs(*study())), overlap.AXIS)
    assert info.rows[-1].vs_kd.mean == pytest.approx(0.02)
    (axes,) = found.figures[0].figure.axes
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [0, 50, 100]
    assert len(set(line.get_ydata())) == 1


def test_only_what_is_there_is_compared_and_only_what_can_be_given_is_asked_for() -> None:
    assert overlap.section(bench_runs(runs(*study()))).gaps == ()
    rows = [
        row
        for row in study()
        if (row["tags.rung"], row.get(f"tags.{tags.OVERLAP}")) != ("L3", "50")
    ]
    gaps = overlap.section(bench_runs(runs(*rows))).gaps
    assert [gap.what for gap in gaps] == ["L3 at 50 % overlap has not finished"]
    assert "overlap=50" in gaps[0].command
    none = overlap.section(bench_runs(runs(*study(overlaps=(100,)))))
    assert [gap.what for gap in none.gaps] == ["no run at several values of overlap has finished"]


def test_a_study_of_methods_is_reported_too() -> None:
    found = overlap.section(bench_runs(runs(*study(("kd", "dkd"), (0, 100)))))
    assert {row[0] for row in found.tables[0].block.rows} == {"CE", "kd (method)", "dkd"}


def test_words_are_those_of_the_family(store) -> None:
    """Two overlaps: each has half of the level."""
    for rung, value in ((r, v) for r in ("CE", "KD", "L3") for v in (0, 100)):
        for seed in range(5):
            own = {
                tags.TEACHERS: "" if rung == "CE" else "a,b",
                tags.RUN_KEY: f"{rung}{value}{seed}",
            }
            own |= {} if value == 100 or rung == "CE" else {tags.OVERLAP: str(value)}
            if rung == "CE":
                own[tags.RUN_KEY] = f"CE-{seed}"
            gain = 0.05 * (rung == "L3" and value == 0) + seed**2 / 3000 * (rung == "L3")
            store.distill("of_overlap", rung, seed, 0.5 + gain + seed / 100, tags=own)
    (found,) = analyze(store.uri, "of_overlap", "overlap").sections
    assert len(found.summary) == 1
    assert found.summary[0].startswith("At 0 % overlap: L3 − ")
    ladders = analyze(store.uri, "of_overlap", "ladder").sections
    half = next(one for one in ladders if one.bench == "toy overlap=0")
    claim = found.summary[0].removeprefix("At 0 % overlap: ")
    assert claim in half.sentences
    assert any("each of 2 benches has its part" in text for text in half.sentences)
