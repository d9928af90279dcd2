"""Labels keep clear of each other."""

import numpy as np
import pytest

from analysis.figures.labels import place_labels, text_box
from analysis.figures.style import new_figure


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


def test_labels_of_one_place_are_apart_though_lines_cover_all():
    _, axes = new_figure("", "", "")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    lines = [((x, 0.0), (x, 1.0)) for x in np.linspace(0, 1, 60)]
    labels = place_labels(axes, [(0.5, 0.5)] * 3, ["one (n = 2)"] * 3, ["k"] * 3, lines)
    boxes = [text_box(label) for label in labels]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
