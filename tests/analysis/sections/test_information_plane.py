"""Rate against the information of z about the label, on frames written by hand."""

import pandas as pd
import pytest

from analysis.sections import information_plane
from analysis.stats import mean_interval
from tests.analysis.frames import history


def test_information_is_entropy_less_cross_entropy_and_only_of_common_steps():
    labels = pd.Series({"r0": "L1", "r1": "L1", "r2": "L2"})
    plane = {"bottleneck__label_entropy": [(0, 2.0), (1, 2.0)]}
    points = pd.concat(
        [
            history(
                "r0",
                bottleneck__val_rate=[(0, 1.0), (1, 3.0)],
                bottleneck__val_ce=[(0, 1.5), (1, 0.5)],
                **plane,
            ),
            history("r1", bottleneck__val_rate=[(1, 5.0)], bottleneck__val_ce=[(1, 0.7)], **plane),
            history("r2", bottleneck__val_rate=[(0, 9.0)], bottleneck__val_ce=[(0, 1.9)], **plane),
        ]
    )
    seeds = pd.Series({"r0": 0, "r1": 1, "r2": 0})
    found = information_plane.plane_info(labels, seeds, points, "toy")
    assert (found.next, found.lead.n) == ("L2", 1)
    printed = information_plane._sentence(found)
    assert "no two seeds in common with the next, L2, so no conclusion. Pareto front" in printed
    assert [(path.label, path.n, path.front) for path in found.paths] == [
        ("L1", 2, True),
        ("L2", 1, False),
    ]
    assert found.paths[0].points[0] == pytest.approx((4.0, 1.4))
    assert found.entropy == 2.0
    rate, information = found.paths[0].rate, found.paths[0].information
    assert rate == mean_interval([3.0, 5.0])
    assert information == pytest.approx(mean_interval([1.5, 1.3]))
    axes = information_plane.draw(found).axes[0]
    plain = [line for line in axes.lines if line.get_marker() == "None"]
    assert len(plain) == 4  # two paths, the front, H(Y)
    bars = [bar.get_segments()[0] for bar in axes.containers[0].lines[2]]
    assert tuple(bars[0][:, 0]) == pytest.approx((rate.low, rate.high))
    assert tuple(bars[1][:, 1]) == pytest.approx((information.low, information.high))
    assert "n = 2 (L1), 1 (L2)" in information_plane._caption(found)
    assert axes.get_xlim()[1] < 10  # the interval of two seeds does not flatten the rest


def test_who_keeps_the_most_is_reported_with_the_paired_difference_to_the_next():
    labels = pd.Series({f"{rung}{s}": rung for rung in ("L1", "L2") for s in range(3)})
    seeds = pd.Series({run: int(run[-1]) for run in labels.index})

    def printed(ahead: tuple[float, ...]) -> str:
        points = [
            history(
                run,
                bottleneck__val_rate=[(0, 1.0)],
                bottleneck__label_entropy=[(0, 2.0)],
                bottleneck__val_ce=[(0, 1.0 - ahead[s] * (rung == "L1"))],
            )
            for (run, rung), s in zip(labels.items(), seeds, strict=True)
        ]
        found = information_plane.plane_info(labels, seeds, pd.concat(points), "toy")
        return information_plane._sentence(found)

    shown = "; 0.200 [0.200, 0.200] nats more than the next, L2, paired by seed and not corrected"
    assert f"{shown} for the choice. Pareto" in printed((0.2,) * 3)
    assert "for the choice, so that it is not shown to keep more. Par" in printed((0.9, -0.3, 0.0))
