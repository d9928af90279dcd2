"""Which test images a student classifies correctly: one bit an image, as tags of its run.

A tag of a tracking store holds few characters, so a large split takes several. The text begins
with the number of images and the sha256 of the bits, by which a damaged record is found.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

CORRECT = "test_correct"  # name of the first tag; the next are test_correct.1, test_correct.2 …
_CHARACTERS = 4000  # of a tag: older stores take 5,000, SQL Server 4,000
_DIGITS = 16  # of the sha256


def packed(correct_N: np.ndarray) -> dict[str, str]:
    """The tags of a record of N truth values, in the order of the images of the split."""
    bits = np.packbits(np.asarray(correct_N, dtype=bool)).tobytes()
    digest = hashlib.sha256(bits).hexdigest()[:_DIGITS]
    body = base64.b85encode(zlib.compress(bits, 9)).decode()
    text = f"{len(correct_N)}:{digest}:{body}"
    parts = [text[at : at + _CHARACTERS] for at in range(0, len(text), _CHARACTERS)]
    return dict(zip(_names(), parts, strict=False))


def unpacked(run_tags: Mapping[str, object]) -> np.ndarray | None:
    """The truth values of a record among the tags of a run; None where it has none, or where it is
    damaged."""
    parts = []
    for name in _names():
        part = run_tags.get(name)
        if not isinstance(part, str):
            break
        parts.append(part)
    size, _, rest = "".join(parts).partition(":")
    digest, _, body = rest.partition(":")
    if not size.isdecimal():
        return None
    try:
        bits = zlib.decompress(base64.b85decode(body))
    except (ValueError, zlib.error):
        return None  # damaged: as if it were not there, so that the interval takes the floor
    if hashlib.sha256(bits).hexdigest()[:_DIGITS] != digest or 8 * len(bits) < int(size):
        return None
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=int(size)).astype(bool)


def _names() -> Iterator[str]:
    yield CORRECT
    number = 0
    while True:
        number += 1
        yield f"{CORRECT}.{number}"
