"""Records of which test images a student classifies correctly."""

import numpy as np
import pytest

from analysis.correctness import CORRECT, packed, unpacked


@pytest.mark.parametrize("size", [1, 7, 359, 10_000, 100_000])
def test_a_record_is_read_back_from_tags_that_every_store_takes(size: int) -> None:
    correct = np.random.default_rng(size).random(size) < 0.85
    tags = packed(correct)
    assert max(map(len, tags.values())) <= 4000
    found = unpacked({"other": "1", **tags})
    assert found is not None
    assert (found == correct).all()


def test_a_damaged_record_is_no_record() -> None:
    tags = packed(np.random.default_rng(0).random(10_000) < 0.5)
    for text in ("", "12", "12:abc:def", tags[CORRECT][:-30], tags[CORRECT].replace(":", ":0", 1)):
        assert unpacked({CORRECT: text}) is None
    assert unpacked({CORRECT: None}) is None
    large = packed(np.random.default_rng(0).random(100_000) < 0.5)
    assert len(large) > 1
    assert unpacked({CORRECT: large[CORRECT]}) is None  # its other parts are missing
