"""What was typed for runs, word for word."""

from collections import Counter
from collections.abc import Collection, Iterable

import pandas as pd

from analysis.runs import column


def words(runs: pd.DataFrame) -> "pd.Series[list[str]]":
    """The words typed for each run; None where the run does not say."""
    lines = column(runs, "params.overrides")
    said = [line.split() if isinstance(line, str) else None for line in lines]
    return pd.Series(said, runs.index, dtype=object)


def common(lines: Iterable[Collection[str]]) -> list[str]:
    """The words of more than half of the lines, in the order in which they first come."""
    lines = list(lines)
    counts = Counter(word for line in lines for word in dict.fromkeys(line))
    return [word for word, count in counts.items() if count > len(lines) / 2]
