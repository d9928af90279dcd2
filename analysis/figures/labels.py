"""Labels in a plot that do not cover each other."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from analysis.figures import style

# Offsets in points, the most readable first: right, left, above, below, then further away.
_NEAR = [(8, 0), (-8, 0), (7, 9), (-7, 9), (7, -9), (-7, -9), (0, 14), (0, -14)]
_OFFSETS = [(x * far, y * far) for far in (1, 1.7, 2.5, 3.5, 5, 7) for x, y in _NEAR]
_STEPS = 24  # at which a line is held against what it may cross
_FAR = 13  # points: beyond this a thin line leads to the label
_POINT, _LINE = 5.0, 2.0  # points: half the width of a marker, and of what is kept free of a line

Line = tuple[tuple[float, float], tuple[float, float]]  # upright or level, from end to end


def place_labels(
    axes: Axes,
    positions: Sequence[tuple[float, float]],
    labels: Sequence[str],
    colours: Sequence[str],
    lines: Sequence[Line],
) -> list[Annotation]:
    """Write each label next to its position, where it covers no position, line or other label.

    Positions and lines are in data units. Call it after everything else is drawn and the limits
    are set. Where no place is free the first that covers no other label is used, or else the last.
    """
    _figure(axes).draw_without_rendering()
    drawn = [_around(axes, (position, position), _POINT) for position in positions]
    drawn += [_around(axes, line, _LINE) for line in lines]
    written: list[Bbox] = []
    return [
        _place(axes, *item, drawn, written) for item in zip(positions, labels, colours, strict=True)
    ]


def _place(
    axes: Axes,
    position: tuple[float, float],
    label: str,
    colour: str,
    drawn: list[Bbox],
    written: list[Bbox],
) -> Annotation:
    frame = axes.get_window_extent()
    everything = [*drawn, *written]
    for claimed in (everything, written, []):
        for offset in _OFFSETS:
            text = _annotate(axes, position, label, colour, offset)
            box = text_box(text)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 <= frame.y1
            last = not claimed and offset is _OFFSETS[-1]
            led = [] if claimed is not everything else _passed(text, drawn)
            if (inside and not box.count_overlaps(claimed) and not led) or last:
                written.append(box)
                return text
            text.remove()
    raise AssertionError("the last place is always taken")


def _passed(label: Annotation, drawn: list[Bbox]) -> list[Bbox]:
    """What the line from a label to its position leads through, but for what is at its end."""
    if label.arrowprops is None or label.axes is None:
        return []
    end = np.asarray(label.axes.transData.transform(label.xy))
    box = text_box(label)
    start = np.clip(end, box.min, box.max)  # the point of the label that is nearest
    along = start + np.linspace(0, 1, _STEPS)[:, None] * (end - start)
    return [
        other
        for other in drawn
        if not other.contains(*end) and any(other.contains(*point) for point in along)
    ]


def text_box(label: Annotation) -> Bbox:
    """The place of the text of a label, in pixels, without the line that leads to it."""
    figure = label.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    label.update_positions(renderer)
    return Text.get_window_extent(label, renderer)


def _annotate(
    axes: Axes, position: tuple[float, float], label: str, colour: str, offset: tuple[float, float]
) -> Annotation:
    x, y = offset
    far = math.hypot(x, y) > _FAR
    return axes.annotate(
        label,
        position,
        xytext=offset,
        textcoords="offset points",
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="center" if y == 0 else "bottom" if y > 0 else "top",
        fontsize=style.SMALL,
        color=colour,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5} if far else None,
    )


def _around(axes: Axes, line: Line, margin: float) -> Bbox:
    box = Bbox(axes.transData.transform(line))
    corners = Bbox.from_extents(*box.min, *box.max)
    return corners.padded(margin * _figure(axes).dpi / 72)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
