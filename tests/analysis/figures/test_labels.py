"""Labels keep clear of each other."""

import numpy as np
import pytest

from analysis.figures.labels import label_ends, place_labels, spread, text_box
from analysis.figures.style import new_figure


def test_spread_leaves_what_is_far_enough():
    assert spread([3.0, 1.0, 2.0], 1.0) == [3.0, 1.0, 2.0]
    assert spread([], 1.0) == []


def test_spread_moves_neighbours_around_their_mean():
    assert spread([1.0, 1.0, 9.0], 2.0) == [0.0, 2.0, 9.0]
    # The pushed pair reaches the third, and all three share one centre.
    assert spread([1.0, 1.0, 2.5], 2.0) == pytest.approx([-0.5, 1.5, 3.5])


def test_spread_keeps_order_and_distance():
    values = np.random.default_rng(0).uniform(0, 10, 30).tolist()
    placed = spread(values, 0.7)
    order = np.argsort(values)
    assert (np.diff(np.array(placed)[order]) >= 0.7 - 1e-9).all()
    assert np.mean(placed) == pytest.approx(np.mean(values))


@pytest.mark.parametrize("seed", range(3))
def test_placed_labels_cover_nothing(seed):
    _, axes = new_figure("", "", "")
    positions = [tuple(point) for point in np.random.default_rng(seed).normal(0.5, 0.1, (8, 2))]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    line = ((0.0, 0.5), (1.0, 0.5))
    names = [f"rung {index} (n = 5)" for index in range(8)]
    boxes = [text_box(label) for label in place_labels(axes, positions, names, ["k"] * 8, [line])]
    pixels = axes.transData.transform([*positions, *[(x, 0.5) for x in np.linspace(0, 1, 99)]])
    for index, box in enumerate(boxes):
        assert box.count_overlaps(boxes) == 1, "only itself"
        assert not any(box.contains(*pixel) for pixel in pixels), names[index]
        assert axes.bbox.contains(box.x0, box.y0)
        assert axes.bbox.contains(box.x1, box.y1)


def test_ends_that_are_equal_get_labels_apart():
    figure, axes = new_figure("", "", "")
    axes.set(xlim=(0, 1), ylim=(0, 100))
    labels = label_ends(axes, [(1.0, 50.0)] * 8, [f"rung {index}" for index in range(8)], ["k"] * 8)
    figure.draw_without_rendering()
    boxes = [text_box(label) for label in labels]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_labels_of_one_place_are_apart_though_lines_cover_all():
    _, axes = new_figure("", "", "")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    lines = [((x, 0.0), (x, 1.0)) for x in np.linspace(0, 1, 60)]
    labels = place_labels(axes, [(0.5, 0.5)] * 3, ["one (n = 2)"] * 3, ["k"] * 3, lines)
    boxes = [text_box(label) for label in labels]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
