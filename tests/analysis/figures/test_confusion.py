"""The confusion matrix, as numbers and as artists."""

import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.figures import fonts
from analysis.figures.confusion import draw_confusion, shares
from analysis.figures.fonts import OWN, families


def test_shares_are_of_the_true_class_and_missing_where_it_has_no_image():
    table = shares([[3, 1], [0, 0]])
    assert table[0].tolist() == [0.75, 0.25]
    assert np.isnan(table[1]).all()


def test_a_small_matrix_says_its_counts_and_its_names():
    figure = draw_confusion([[3, 1, 0], [0, 2, 0], [0, 0, 0]], ["cat", "dog", "ox"], "toy")
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "ox"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "ox"]
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("toy", "true class")
    figure.draw_without_rendering()


def test_labels_of_a_large_matrix_do_not_run_into_each_other():
    classes = 250
    names = [f"class {number}" for number in range(classes)]
    figure = draw_confusion(np.eye(classes, dtype=int).tolist(), names, "many")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert not axes.texts
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) <= 40
    assert labels[1] == names[int(axes.get_xticks()[1])]


def test_names_of_any_script_are_written_without_boxes_and_without_warnings() -> None:
    names = ["猫", "mathe$x_$", "Größe β ж", "\U0010fffd"]  # the last one is in no font
    figure = draw_confusion(np.eye(4, dtype=int).tolist(), names, "猫 costs $5_$")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[1:] == ["mathe$x_$", "Größe β ж", "3"]
    assert labels[0] == ("0" if families("猫") is None else "猫")
    assert "number" in figure.axes[0].get_ylabel()


def test_families_of_several_scripts_are_found_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert families("plain ä β") == [OWN]
    hana, box = (SimpleNamespace(name=name, fname=name) for name in ("Hana", "Last Resort High"))
    monkeypatch.setattr(fonts.fontManager, "ttflist", [box, hana])
    known = {"Hana": frozenset({ord("猫")}), "Last Resort High": frozenset(range(2**16))}
    monkeypatch.setattr(fonts, "_characters", lambda path: known.get(path, frozenset(range(128))))
    assert families("a 猫") == [OWN, "Hana"]
    assert families("犬") is None
