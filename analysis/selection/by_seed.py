"""Values of a rung by seed, and the size of the test split."""

import numpy as np
import pandas as pd

from analysis import tags
from analysis.correctness import CORRECT, unpacked
from analysis.difference import StudentTest
from analysis.runs import column
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from trainers import metrics

_ROUNDED = 1000  # accuracies in steps of 1/1000 or more may be numbers that were rounded
_LARGEST = 100_000  # images of a split whose size is not logged
_SINGLE = 6e-8  # rounding of single precision, of a value near 1
_FEWEST = 4  # different accuracies that tell the size


def logged_by_seed(
    kept: pd.DataFrame, bench: str, rung: str, metric: str = metrics.TEST_TOP1
) -> dict[int, float]:
    """Test accuracy (or another metric) by seed of one rung on one bench."""
    wanted = {*RUNG_COLUMNS, f"tags.{tags.SEED}", f"metrics.{metric}"}
    few = kept[[name for name in kept if name in wanted]]  # of hundreds of columns
    chosen = few[column(few, RUNG_COLUMNS[0]).eq(bench) & column(few, RUNG_COLUMNS[1]).eq(rung)]
    seeds = seeds_of(chosen).astype(int)
    if seeds.duplicated().any():
        raise ValueError(f"{rung} on {bench}: a seed occurs twice; apply one_configuration first")
    return dict(zip(seeds, column(chosen, f"metrics.{metric}").astype(float), strict=True))


def tested_by_seed(kept: pd.DataFrame, bench: str, rung: str) -> dict[int, StudentTest]:
    """Test accuracy by seed of one rung on one bench, with the record of each image."""
    of_rung = kept[column(kept, RUNG_COLUMNS[0]).eq(bench) & column(kept, RUNG_COLUMNS[1]).eq(rung)]
    accuracy = logged_by_seed(kept, bench, rung)
    tested = zip(seeds_of(of_rung).astype(int), tested_of(of_rung), strict=True)
    return {seed: one._replace(accuracy=accuracy[seed]) for seed, one in tested}


def tested_of(runs: pd.DataFrame) -> list[StudentTest]:
    """Test accuracy of each run, with the record of each image where the run has one that agrees
    with its accuracy."""
    names = [str(name) for name in runs if str(name).startswith(f"tags.{CORRECT}")]
    accuracies = column(runs, f"metrics.{metrics.TEST_TOP1}").astype(float)
    found = []
    for value, row in zip(accuracies, runs[names].to_dict("records"), strict=True):
        record = unpacked({str(key).removeprefix("tags."): one for key, one in row.items()})
        agrees = record is not None and abs(record.mean() - value) < 0.5 / len(record)
        found.append(StudentTest(float(value), record if agrees else None))
    return found


def images_of(kept: pd.DataFrame) -> int | None:
    """How many images the test split has: as the runs say; else, of runs of older versions, the
    smallest number of which all accuracies are shares. None where neither tells."""
    logged = column(kept, f"metrics.{metrics.TEST_IMAGES}").astype(float).dropna().unique()
    if len(logged) == 1 and logged[0] >= 1:
        return int(logged[0])
    values = column(kept, f"metrics.{metrics.TEST_TOP1}").astype(float)
    shares = np.unique(values[(values > 0) & (values < 1)].round(7))
    if len(logged) or len(shares) < _FEWEST:
        return None
    sizes = np.arange(2, _LARGEST + 1)
    for share in shares:
        counts = share * sizes
        sizes = sizes[np.abs(counts - counts.round()) <= 2 * _SINGLE * sizes]
    return int(sizes[0]) if len(sizes) and _ROUNDED % sizes[0] else None
