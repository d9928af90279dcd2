"""Run look-up: the run that an id, a key, the beginning of one, a name or a rung means."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import column, select
from analysis.selection.configurations import configuration, one_configuration, seeds_of
from analysis.suggest import nearest
from trainers import metrics

_BEGINNING = re.compile(r"[0-9a-f]{4,32}")  # of an id or a key
_LISTED = 6
_DISTINGUISHING = 2  # parameters by which runs of one name are listed
_NEEDS = {"distill": metrics.TEST_TOP1, "finetune": metrics.BEST_VAL_TOP1}  # of a result
_KEY, _RUNG = f"tags.{tags.RUN_KEY}", f"tags.{tags.RUNG}"


class RunNames(NamedTuple):
    """The words that mean a run, of the tracking store or of a folder of the local store; empty
    where it has none."""

    stage: str
    key: str
    name: str
    rung: str = ""
    run_id: str = ""


def matching(word: str, runs: Sequence[RunNames]) -> list[int]:
    """The positions of the runs that a word means; empty where it means none.

    The first of these rules with a match decides: whole id, whole key, whole name, beginning of an
    id, beginning of a key (of both at least 4 digits), rung. Runs of one key are one experiment.
    """
    rules = [[run.run_id == word for run in runs], [run.key == word for run in runs]]
    rules += [[run.name == word for run in runs]]
    if _BEGINNING.fullmatch(word):
        rules += [[run.run_id.startswith(word) for run in runs]]
        rules += [[run.key.startswith(word) for run in runs]]
    rules += [[run.rung == word for run in runs]]
    for rule in rules:
        if word and any(rule):
            return [position for position, matches in enumerate(rule) if matches]
    return []


def unknown(word: str, runs: Sequence[RunNames], where: str = "") -> str:
    """The message on a word that means no run: the nearest names and the rungs that exist."""
    rungs = sorted({run.rung for run in runs} - {""})
    known = list(dict.fromkeys([*(run.name for run in runs), *rungs]))
    return (
        f"{word}: no run of this id, key, name or rung{where}{nearest(word, known)}; "
        f"an id or a key can be cut to its first 4 digits; rungs: {', '.join(rungs) or 'none'}"
    )


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


def select_runs(
    runs: pd.DataFrame,
    words: Sequence[str],
    bench: str | None = None,
    experiment: str | None = None,
) -> list[RunSelection]:
    """A selection for each word. A rung means its run at the lowest seed that all selections have.
    `experiment` is the one that the runs are of, for messages.

    Raises ValueError with one message for all words that mean no run, or several.
    """
    trained = runs[column(runs, f"tags.{tags.STAGE}").isin(list(_NEEDS))]
    if bench is not None:
        trained = trained[column(trained, f"tags.{tags.BENCH}").eq(bench)]
    names, found, errors = _names(trained), [], []
    where = f" in experiment '{experiment}' (experiment=NAME chooses another)" if experiment else ""
    for word in words:
        try:
            found.append(_selection(trained, names, word, where))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return _at_one_seed(found)


def _names(trained: pd.DataFrame) -> list[RunNames]:
    wanted = (f"tags.{tags.STAGE}", _KEY, "name", _RUNG, "run_id")
    columns = [column(trained, name).fillna("").astype(str) for name in wanted]
    return [RunNames(*row) for row in zip(*columns, strict=True)]


def _selection(
    trained: pd.DataFrame, names: Sequence[RunNames], word: str, where: str
) -> RunSelection:
    positions = matching(word, names)
    if not positions:
        raise ValueError(unknown(word, names, where))
    matches, one = trained.iloc[positions], names[positions[0]]
    if one.rung == word and one.name != word:
        return _of_rung(trained, matches, word)
    run = _one(matches, word)
    return RunSelection(word, run, _repetitions(trained, run))


def _one(matches: pd.DataFrame, word: str) -> pd.Series:
    """The run that is meant; of one key the original that has finished, of equals the oldest."""
    if column(matches, _KEY).nunique(dropna=False) > 1:
        listed = _by_difference(matches)
        raise ValueError(f"{word}: {len(matches)} runs match: {listed}; give an id")
    ranked = matches.assign(
        _late=matches["status"].ne("FINISHED"),
        _reused=column(matches, f"tags.{tags.REUSED}").eq("true"),
    ).sort_values(["_late", "_reused", "start_time"])
    return ranked.drop(columns=["_late", "_reused"]).iloc[0]


def _of_rung(trained: pd.DataFrame, of_rung: pd.DataFrame, word: str) -> RunSelection:
    benches = sorted(column(of_rung, f"tags.{tags.BENCH}").dropna().unique())
    if len(benches) > 1:
        listed = ", ".join(f"bench={name}" for name in benches)
        raise ValueError(f"{word}: it ran on several benches; choose one ({listed})")
    on_bench = trained[column(trained, f"tags.{tags.BENCH}").isin(benches)]
    kept = one_configuration(select(on_bench, stage="distill")).kept
    group = kept[column(kept, _RUNG).eq(word)]
    if group.empty:
        raise ValueError(f"{word}: no run of it has finished: {_listed(of_rung)}; give an id")
    return RunSelection(word, group.iloc[int(seeds_of(group).argmin())], group, rung=True)


def _repetitions(trained: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    """The finished runs of the run's recipe, one a seed; at its own seed the run itself."""
    stage, recipe = run[f"tags.{tags.STAGE}"], run.get(f"tags.{tags.RECIPE}")
    same = trained["run_id"].eq(run["run_id"])
    if isinstance(recipe, str):
        same |= column(trained, f"tags.{tags.RECIPE}").eq(recipe)
    found = select(trained[same], stage=stage, needs=_NEEDS[stage]).kept
    others = found[column(found, f"tags.{tags.SEED}").ne(str(run.get(f"tags.{tags.SEED}")))]
    own = select(trained[trained["run_id"].eq(run["run_id"])], stage=stage, needs=_NEEDS[stage])
    return pd.concat([own.kept, others]) if len(others) else own.kept


def _at_one_seed(found: list[RunSelection]) -> list[RunSelection]:
    """With the runs of rungs at the lowest seed that every selection has, where there is one."""
    seeds = [set(seeds_of(one.group).astype(int)) if one.rung else {one.seed} for one in found]
    shared = {seed for seed in seeds[0] if seed is not None and all(seed in of for of in seeds)}
    if not shared:
        return found
    seed = min(shared)
    at_seed = [one.group[seeds_of(one.group).eq(seed)] for one in found]
    return [
        one._replace(run=runs.iloc[0]) if one.rung else one
        for one, runs in zip(found, at_seed, strict=True)
    ]


def _by_difference(runs: pd.DataFrame) -> str:
    """Runs of one name, each with the parameters in which it differs, where these are known."""
    found = configuration(runs)
    varying = [str(name) for name in found if found[name].nunique() > 1][:_DISTINGUISHING]
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
