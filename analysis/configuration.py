"""One configuration a rung: what a mean over seeds may be taken of."""

import re

import pandas as pd

from analysis.runs import Selection, column, split
from pipeline import names

RUNG_COLUMNS = (f"tags.{names.BENCH}", f"tags.{names.RUNG}")

# What every rung of a bench shares unless the ladder was given different budgets or data.
_SHARED = re.compile(r"params\.(budget\.student_epochs|data\..*|optim\..*|mix\..*|numerics\..*)")

# What the rungs with a fusion module share beside that: all of the method but their factors.
_FUSED = re.compile(
    r"params\.method\.(?!name|kd_target|bottleneck|num_stages|adapt|teacher_levels|student_levels"
    r"|freeze_bn|placebo|target_view).*"
)

# Parameters that may differ between the seeds of one configuration: the seeds themselves (the
# teachers' too), what does not change results, and the line that the user typed.
_NOT_CONFIGURATION = re.compile(
    r"params\.((.*\.)?seed|runtime\..*|data\.root|data\.download|overrides)"
)


def by_overlap(kept: pd.DataFrame) -> pd.DataFrame:
    """Runs whose teachers were specialised as a bench of their own, `digits overlap=50`: they are
    another problem, with controls of its own. A run without teachers belongs to each of them."""
    overlap = column(kept, f"tags.{names.OVERLAP}")
    if not overlap.notna().any():
        return kept
    bench = column(kept, RUNG_COLUMNS[0]).astype(object)
    label = bench.where(overlap.isna(), bench + " overlap=" + overlap.astype(object))
    taught = column(kept, f"tags.{names.TEACHERS}").fillna("").ne("")
    parts = [kept[taught].assign(**{RUNG_COLUMNS[0]: label[taught]})]
    for name in bench[~taught].dropna().unique():
        labels = sorted(label[taught & bench.eq(name)].unique()) or [name]
        of_bench = kept[~taught & bench.eq(name)]
        parts += [of_bench.assign(**{RUNG_COLUMNS[0]: one}) for one in labels]
    return pd.concat(parts, ignore_index=True)


def one_configuration(selection: Selection) -> Selection:
    """Leave out runs that a mean over seeds must not mix, for each bench and rung.

    Of several configurations (told apart by the tag of their recipe, or else by all parameters but
    seeds and `runtime`) the one with the most seeds is kept, of equals the one that has most in
    common with the other rungs of the bench, of equals the one with the newest run; then the newest
    run of each seed. Reasons: no seed, other configuration (with up to two parameters in which it
    differs), older run of the same seed.
    """
    kept, left_out = selection
    reason = pd.Series(None, kept.index, dtype=object)
    reason[seeds_of(kept).isna()] = "no seed"
    usable = _varying(kept[reason.isna()])
    of_rung = [column(usable, name) for name in RUNG_COLUMNS]
    for _, group in usable.groupby(of_rung, dropna=False):
        beside = usable.drop(group.index)
        reason.update(_reasons(group, beside[_bench_of(beside).eq(_bench_of(group).iloc[0])]))
    chosen = split(kept, reason)
    parts = [part for part in (left_out, chosen.left_out) if len(part)]
    return Selection(chosen.kept, pd.concat(parts) if parts else left_out)


def _varying(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the parameters that are the same in all runs: they tell nothing apart, and most
    of a hundred are."""
    parameters = [name for name in runs if str(name).startswith("params.")]
    same = [name for name in parameters if runs[name].nunique(dropna=False) < 2]
    return runs.drop(columns=same)


def seeds_of(frame: pd.DataFrame) -> pd.Series:
    """The seed of each run as a number, NaN where its tag is missing or not a number."""
    return pd.to_numeric(column(frame, f"tags.{names.SEED}"), errors="coerce")


def same_setting(kept: pd.DataFrame, bench: str, rung: str, other: str) -> bool:
    """Whether two rungs were trained on the same data with the same student and budget, as far as
    their runs say: only then is a difference between them one of methods."""
    runs = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    settings = [
        set(column(runs[column(runs, RUNG_COLUMNS[1]).eq(one)], f"tags.{names.SETTING}").dropna())
        for one in (rung, other)
    ]
    return not all(settings) or settings[0] == settings[1]


def not_shared(kept: pd.DataFrame, bench: str) -> tuple[str, ...]:
    """Parameters that should be equal in all rungs of a bench and are not, one sentence each."""
    runs = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    runs = runs[column(runs, f"tags.{names.MATCHED_TO}").isna()]  # its budget is the rung's time
    fuses = column(runs, "params.method.kd_target").isin(["synergy", "auto"])
    return (*_differing(runs, _SHARED), *_differing(runs[fuses], _FUSED))


def _differing(runs: pd.DataFrame, which: re.Pattern[str]) -> list[str]:
    parameters = configuration(runs[[name for name in runs if which.fullmatch(str(name))]])
    sentences = []
    for name in parameters.columns[parameters.nunique() > 1]:
        rungs = runs.groupby(parameters[name])[RUNG_COLUMNS[1]].unique()
        values = "; ".join(f"{value}: {', '.join(sorted(of))}" for value, of in rungs.items())
        sentences.append(
            f"{str(name).removeprefix('params.')} is not the same everywhere ({values})"
        )
    return sentences


def _bench_of(frame: pd.DataFrame) -> pd.Series:
    return column(frame, RUNG_COLUMNS[0])


def _reasons(group: pd.DataFrame, beside: pd.DataFrame) -> pd.Series:
    """Why a run of this bench and rung does not count; only the runs that do not. `beside`: the
    runs of the other rungs."""
    newest_first = group.sort_values(["start_time", "run_id"], ascending=False)
    parameters = configuration(newest_first)
    typed = pd.Series(["\n".join(row) for row in parameters.to_numpy()], parameters.index)
    of_run = column(newest_first, f"tags.{names.RECIPE}").fillna(typed)
    seeds = seeds_of(newest_first)
    # In the order of the newest run of each, so that the newest of equals is taken.
    counts = seeds.groupby(of_run, sort=False).nunique()
    common = _agreement(parameters, beside).groupby(of_run, sort=False).max()
    best = max(counts.index, key=lambda recipe: (counts[recipe], common[recipe]))
    same = of_run.eq(str(best))
    reference = parameters[same].iloc[0]
    reasons = {run: _difference(parameters.loc[run], reference) for run in same.index[~same]}
    repeated = seeds[same].duplicated()
    reasons |= dict.fromkeys(repeated.index[repeated], "older run of the same seed")
    return pd.Series(reasons, dtype=object)


def _agreement(parameters: pd.DataFrame, beside: pd.DataFrame) -> pd.Series:
    """How many (other run, parameter) pairs each run has in common with the other rungs."""
    others = configuration(beside).reindex(columns=parameters.columns, fill_value="not set")
    same = [parameters[name].map(others[name].value_counts()).fillna(0) for name in parameters]
    return pd.concat(same, axis=1).sum(axis=1) if same else pd.Series(0.0, parameters.index)


def configuration(group: pd.DataFrame) -> pd.DataFrame:
    """The parameters that can change a result, seeds left out, as text; `not set` where absent."""
    columns = [name for name in group if str(name).startswith("params.")]
    wanted = [name for name in columns if not _NOT_CONFIGURATION.fullmatch(str(name))]
    return group[wanted].astype(object).fillna("not set").astype(str)


def _difference(other: pd.Series, reference: pd.Series) -> str:
    changed = other[other != reference]
    shown = [f"{str(key).removeprefix('params.')}={value}" for key, value in changed.items()]
    more = ", …" if len(shown) > 2 else ""
    shown = shown or ["other teachers or numerics"]
    return f"other configuration ({', '.join(shown[:2])}{more})"
