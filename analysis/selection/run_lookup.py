"""Which run is meant by what a person types: an id, a key, the beginning of one, a name, a rung."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import column, select
from analysis.selection.configurations import configuration, one_configuration, seeds_of
from analysis.suggest import nearest
from trainers import metrics

_HEX = re.compile(r"[0-9a-f]{4,32}")
_LISTED = 6
_TOLD = 2  # parameters that tell runs of one name apart
_STAGES = {
    "distill": metrics.TEST_TOP1,
    "finetune": metrics.BEST_VAL_TOP1,
}  # and what a result needs


class RunSelection(NamedTuple):
    """One of the runs that are compared, and the finished runs of its configuration, one a seed
    (the run itself among them where it has finished)."""

    word: str
    run: pd.Series
    group: pd.DataFrame
    rung: bool = False  # whether the word was a rung, that is all runs of the group

    @property
    def seed(self) -> int | None:
        """Of the run; None where it has none."""
        text = self.run.get(f"tags.{tags.SEED}")
        return int(text) if isinstance(text, str) and text.isdecimal() else None

    def tag(self, name: str) -> str:
        """A tag of the run, empty where it has none."""
        value = self.run.get(f"tags.{name}")
        return value if isinstance(value, str) else ""


def sides(
    runs: pd.DataFrame,
    words: Sequence[str],
    bench: str | None = None,
    experiment: str | None = None,
) -> list[RunSelection]:
    """A side for each word. Rungs stand for their runs at the lowest seed that all sides have.
    `experiment` is the one that the runs are of, for messages.

    Raises ValueError with one message for all words that mean no run, or several.
    """
    trained = runs[column(runs, f"tags.{tags.STAGE}").isin(list(_STAGES))]
    if bench is not None:
        trained = trained[column(trained, f"tags.{tags.BENCH}").eq(bench)]
    found, mistakes = [], []
    for word in words:
        try:
            found.append(_side(trained, word, experiment))
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return _at_one_seed(found)


def _side(trained: pd.DataFrame, word: str, experiment: str | None) -> RunSelection:
    texts = {name: column(trained, name).fillna("").astype(str) for name in _SEARCHED}
    whole = [texts["run_id"].eq(word), texts[_KEY].eq(word), texts["name"].eq(word)]
    if _HEX.fullmatch(word):
        whole += [texts["run_id"].str.startswith(word), texts[_KEY].str.startswith(word)]
    for same in whole:
        if same.any():
            run = _one(trained[same], word)
            return RunSelection(word, run, _repetitions(trained, run))
    of_rung = trained[texts[_RUNG].eq(word)]
    if len(of_rung):
        return _of_rung(trained, of_rung, word)
    raise ValueError(_unknown(trained, word, experiment))


_KEY, _RUNG = f"tags.{tags.RUN_KEY}", f"tags.{tags.RUNG}"
_SEARCHED = ("run_id", "name", _KEY, _RUNG)


def _one(matches: pd.DataFrame, word: str) -> pd.Series:
    """The run that is meant; of one key the original that has finished, of equals the oldest."""
    if column(matches, _KEY).nunique(dropna=False) > 1:
        told = _told_apart(matches)
        raise ValueError(f"{word}: {len(matches)} runs are called so: {told}; give an id")
    ranked = matches.assign(
        _late=matches["status"].ne("FINISHED"),
        _reused=column(matches, f"tags.{tags.REUSED}").eq("true"),
    ).sort_values(["_late", "_reused", "start_time"])
    return ranked.drop(columns=["_late", "_reused"]).iloc[0]


def _of_rung(trained: pd.DataFrame, of_rung: pd.DataFrame, word: str) -> RunSelection:
    there = sorted(column(of_rung, f"tags.{tags.BENCH}").dropna().unique())
    if len(there) > 1:
        listed = ", ".join(f"bench={name}" for name in there)
        raise ValueError(f"{word}: it ran on several benches; say which ({listed})")
    on_bench = trained[column(trained, f"tags.{tags.BENCH}").isin(there)]
    kept = one_configuration(select(on_bench, stage="distill")).kept
    group = kept[column(kept, _RUNG).eq(word)]
    if group.empty:
        raise ValueError(f"{word}: no run of it has finished: {_listed(of_rung)}; give an id")
    return RunSelection(word, group.iloc[int(seeds_of(group).argmin())], group, rung=True)


def _repetitions(trained: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    stage, recipe = run[f"tags.{tags.STAGE}"], run.get(f"tags.{tags.RECIPE}")
    same = trained["run_id"].eq(run["run_id"])
    if isinstance(recipe, str):
        same |= column(trained, f"tags.{tags.RECIPE}").eq(recipe)
    found = select(trained[same], stage=stage, needs=_STAGES[stage]).kept
    # Of one seed of one recipe there is one key; the run that was asked for stands for it.
    others = found[column(found, f"tags.{tags.SEED}").ne(str(run.get(f"tags.{tags.SEED}")))]
    own = select(trained[trained["run_id"].eq(run["run_id"])], stage=stage, needs=_STAGES[stage])
    return pd.concat([own.kept, others]) if len(others) else own.kept


def _at_one_seed(found: list[RunSelection]) -> list[RunSelection]:
    """With the runs of rungs at the lowest seed that every side has, where there is one."""
    seeds = [set(seeds_of(side.group).astype(int)) if side.rung else {side.seed} for side in found]
    shared = {seed for seed in seeds[0] if seed is not None and all(seed in of for of in seeds)}
    if not shared:
        return found
    seed = min(shared)
    at_seed = [side.group[seeds_of(side.group).eq(seed)] for side in found]
    return [
        side._replace(run=runs.iloc[0]) if side.rung else side
        for side, runs in zip(found, at_seed, strict=True)
    ]


def _told_apart(runs: pd.DataFrame) -> str:
    """Runs of one name by what differs between them, where it is known."""
    found = configuration(runs)
    varying = [str(name) for name in found if found[name].nunique() > 1][:_TOLD]
    if not varying:
        return _listed(runs)
    shown = []
    for run_id, values in zip(runs["run_id"], found[varying].to_numpy(), strict=True):
        parts = zip(varying, values, strict=True)
        words = ", ".join(f"{name.removeprefix('params.')}={value}" for name, value in parts)
        shown.append(f"{run_id[:8]} ({words})")
    return ", ".join(shown[:_LISTED]) + _more(runs)


def _listed(runs: pd.DataFrame) -> str:
    shown = [
        f"{run['run_id'][:8]} ({run['name']}, {str(run['status']).lower()})"
        for _, run in runs.head(_LISTED).iterrows()
    ]
    return ", ".join(shown) + _more(runs)


def _more(runs: pd.DataFrame) -> str:
    return f" and {len(runs) - _LISTED} more" if len(runs) > _LISTED else ""


def _unknown(trained: pd.DataFrame, word: str, experiment: str | None) -> str:
    known = [name for one in ("name", _RUNG) for name in column(trained, one).dropna().unique()]
    rungs = ", ".join(sorted(column(trained, _RUNG).dropna().unique())) or "none"
    where = f" in experiment '{experiment}' (experiment=NAME chooses another)" if experiment else ""
    return (
        f"{word}: no run of this id, key, name or rung{where}{nearest(word, known)} "
        f"(an id or a key can be cut to its first 4 digits; rungs that ran: {rungs})"
    )
