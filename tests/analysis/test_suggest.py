"""The nearest known name."""

import pytest

from analysis.suggest import nearest


@pytest.mark.parametrize(
    ("word", "names", "hint"),
    [
        ("l3", ["L2", "L3"], "; did you mean L3?"),
        ("Kd", ["KD", "kd", "kd_ls"], "; did you mean KD or kd?"),
        ("ib_bta", ["seed", "method.ib_beta"], "; did you mean method.ib_beta?"),
        ("nothing", ["L2", "L3"], ""),
    ],
)
def test_the_nearest_name(word: str, names: list[str], hint: str) -> None:
    assert nearest(word, names) == hint
    assert nearest(word, names, show_all=True) == f"{hint} (allowed: {', '.join(names)})"
