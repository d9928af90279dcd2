"""One reading of an experiment: all analyses of it look at the same rows, each read once."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from pandas.api.types import union_categoricals

from analysis import tags
from analysis.runs import HISTORY_COLUMNS, column, load_history, load_runs
from analysis.selection.filters import RunFilter, chosen


class _Histories(NamedTuple):
    """What was read of the runs of an experiment; it holds while the same runs are finished."""

    uri: str
    runs: tuple[tuple[str, pd.Timestamp], ...]  # run id and end
    by_metric: dict[str, pd.DataFrame]


_latest: list[_Histories] = []  # of the reading before, in this process


class ExperimentReader:
    """The selected runs of an experiment, and their histories, read when first needed."""

    def __init__(self, uri: str, experiment: str, filters: RunFilter | None = None) -> None:
        """Raises ValueError where there is no such store or experiment, or for a date that cannot
        be read."""
        self.uri, self.experiment, self.filters = uri, experiment, filters or RunFilter()
        everything = load_runs(uri, experiment)
        self.experiment_id = str(everything.attrs["experiment_id"])
        self.runs = chosen(everything, self.filters)
        self._histories = _of_finished(uri, self.runs)

    def trained(self) -> list[str]:
        """Ids of the training runs, whatever became of them."""
        stage = column(self.runs, f"tags.{tags.STAGE}")
        return self.runs.loc[stage.isin(["distill", "finetune"]), "run_id"].tolist()

    def of_studies(self) -> list[str]:
        """Ids of what a report reads of studies: those that declared a primary claim, and trials
        whose row has a name."""
        declared = column(self.runs, f"tags.{tags.CLAIM}").notna()
        trials = column(self.runs, f"tags.{tags.STAGE}").eq("trial")
        named = trials & column(self.runs, "params.row").notna()
        return self.runs.loc[declared | named, "run_id"].tolist()

    def metrics(self) -> list[str]:
        """Metrics whose histories were read so far."""
        return sorted(self._histories.by_metric)

    def history(self, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
        """As `load_history` gives it, of finished training runs. A metric is read for all of them
        at once, since in a database one pass over it finds them all."""
        known, wanted = self._histories.by_metric, sorted(set(metrics))
        absent = [metric for metric in wanted if metric not in known]
        if absent:
            found = load_history(self.uri, [run_id for run_id, _ in self._histories.runs], absent)
            code = found["metric"].cat.codes
            known |= {metric: found[code == number] for number, metric in enumerate(absent)}
        if not wanted:
            return load_history(self.uri, [], [])
        parts = [known[metric] for metric in wanted]
        metric = union_categoricals([part["metric"] for part in parts])
        joined = pd.concat(parts, ignore_index=True).assign(metric=metric)
        return joined.loc[joined["run_id"].isin(run_ids), list(HISTORY_COLUMNS)]


def _of_finished(uri: str, runs: pd.DataFrame) -> _Histories:
    """What is known of these runs already, or nothing yet."""
    trained = column(runs, f"tags.{tags.STAGE}").isin(["distill", "finetune"])
    finished = runs[trained & runs["status"].eq("FINISHED")]
    stamp = tuple(zip(finished["run_id"], finished["end_time"], strict=True))
    if not _latest or _latest[0][:2] != (uri, stamp):
        _latest[:] = [_Histories(uri, stamp, {})]
    return _latest[0]
