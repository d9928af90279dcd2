"""Several benches in one table."""

import numpy as np
import pytest

from analysis import tags
from analysis.render.text import WIDTH, as_terminal
from analysis.sections import benches
from analysis.sections.benches import Cell, improvement
from analysis.sections.registry import analyze


def cell(values: tuple[float, ...], control: tuple[float, ...]) -> Cell:
    return Cell("toy", 0.0, None, values, control)


def test_the_probability_of_improvement_is_the_share_of_pairs() -> None:
    found = improvement([cell((0.9, 0.8), (0.8, 0.7)), cell((0.5, 0.5), (0.9, 0.9))])
    assert found.mean == pytest.approx((3.5 / 4 + 0) / 2)
    assert found.low <= found.mean <= found.high
    one = improvement([cell((0.9,), (0.8, 0.7))])
    assert one.mean == 1.0
    assert np.isnan(one.low)


@pytest.mark.thorough
def test_its_interval_covers() -> None:
    draw, held = np.random.default_rng(0), []
    for _ in range(60):
        found = improvement(
            [cell(tuple(draw.normal(size=10)), tuple(draw.normal(size=10))) for _ in range(3)]
        )
        held.append(found.low <= 0.5 <= found.high)
    assert np.mean(held) > 0.85


@pytest.mark.thorough
def test_rungs_by_benches_are_one_table_at_the_top_of_a_report(store) -> None:
    noise = np.random.default_rng(0)
    for bench, gain in (("a", 0.05), ("b", 0.0)):
        for rung in ("CE", "KD", "L3", "L4"):
            for seed in range(5):
                own = {tags.BENCH: bench, tags.RUN_KEY: f"{bench}{rung}{seed}"}
                value = 0.6 + gain * (rung == "L4") + float(noise.normal(0, 0.004))
                store.distill("of_benches", rung, seed, value, tags=own)
    report = analyze(store.uri, "of_benches", "ladder")
    assert report.benches == (benches.ALL, "a", "b")
    first = report.sections[0]
    assert first.sentences[0].startswith("This report makes 2 primary claims, one a bench")
    (table,) = first.tables
    assert table.block.header == ("rung", "a", "b", "mean", "probability, %")
    l4 = dict(zip(table.block.header, table.block.rows[-1], strict=True))
    assert l4["a"].endswith("*")
    assert not l4["b"].endswith("*")
    assert 3.5 < float(l4["a"].strip("+*")) < 6.5
    text = as_terminal(report)
    assert "each of 2 benches has its part of the level" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH
    one = analyze(store.uri, "of_benches", "methods")
    assert one.benches == ("a", "b")
