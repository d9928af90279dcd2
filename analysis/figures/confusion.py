"""Which class was taken for which, as a figure in the house style."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from analysis.figures import fonts, style

_NUMBERED = 20  # classes up to which every cell says its count
_LABELLED = 40  # labels that an axis has room for
_SHADES = LinearSegmentedColormap.from_list("house", ["#ffffff", "#0072b2"])


def shares(counts: Sequence[Sequence[int]]) -> np.ndarray:
    """Each row over its sum; NaN where a class has no image. Shape [C, C]."""
    table = np.asarray(counts, dtype=float)
    images = table.sum(1, keepdims=True)
    return np.divide(table, images, out=np.full_like(table, np.nan), where=images > 0)


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Figure:
    """Rows are the true classes, columns what they were taken for, both in the order of `names`;
    shaded by the share of the true class. Small tables say the counts. Names that no font here can
    write are replaced by the number of the class."""
    writable = [fonts.families(name) is not None for name in names]
    numbered = "" if all(writable) else " (a number: no font here has the letters of its name)"
    names = [
        name if yes else str(k) for k, (name, yes) in enumerate(zip(names, writable, strict=True))
    ]
    figure, axes = style.new_figure(title, "taken for", f"true class{numbered}")
    figure.set_size_inches(style.WIDTH, 0.9 * style.WIDTH)
    axes.grid(visible=False)
    table = shares(counts)
    image = axes.imshow(table, cmap=_SHADES, vmin=0, vmax=1, interpolation="nearest")
    shown = range(0, len(names), -(-len(names) // _LABELLED))
    labels = [names[index] for index in shown]
    rotation = 90 if max(map(len, labels)) > 3 else 0
    plain = {"fontsize": style.SMALL} | style.written("".join(labels))
    axes.set_xticks(shown, labels, rotation=rotation, **plain)
    axes.set_yticks(shown, labels, **plain)
    if len(names) <= _NUMBERED:
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                colour = "white" if table[row, column] > 0.5 else style.TEXT
                if count:
                    axes.text(
                        column,
                        row,
                        str(count),
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=style.SMALL - 1,
                    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=style.SMALL, colors=style.TEXT)
    return figure
