"""One configuration a rung: what a mean over seeds may be taken of."""

import re
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import Selection, column, split
from analysis.selection import overrides
from trainers import metrics

RUNG_COLUMNS = (f"tags.{tags.BENCH}", f"tags.{tags.RUNG}")

# Of runs that count: the configuration that their rung is shown with, and why that one; empty
# where the rung has no other.
CONFIGURATION, WHY = "configuration", "configuration_why"
_BETA_ALONE = re.compile(r"method\.ib_beta=[^,]*")
_TYPED = "typed"  # while runs are chosen
_ABSENT = "None"  # as a parameter says null

# What every rung of a bench shares unless the ladder was given different budgets or data.
_SHARED = re.compile(
    r"params\.(budget\.student_epochs|(data(?!\.teacher_limit)|student|optim|mix|numerics)\..*"
    r"|select)"
)

# What the rungs with a fusion module share beside that: all of the method but their factors.
_FUSED = re.compile(
    r"params\.method\.(?!name|kd_target|bottleneck|num_stages|adapt|teacher_levels|student_levels"
    r"|freeze_bn|placebo|target_view).*"
)

# What is typed for one run, or changes no result.
_OWN_WORD = re.compile(r"(cfg|seed|bench|method|runtime\..*|hydra.*|data\.root|data\.download)=.*")

# Parameters that may differ between the seeds of one configuration: the seeds themselves (the
# teachers' too), what does not change results, and the line that the user typed.
_NOT_CONFIGURATION = re.compile(
    r"params\.((.*\.)?seed|runtime\..*|data\.root|data\.download|overrides)"
)


def by_overlap(kept: pd.DataFrame) -> pd.DataFrame:
    """Runs whose teachers were specialised as a bench of their own, `digits overlap=50`: they are
    another problem, with controls of its own. A run without teachers belongs to each of them."""
    overlap = column(kept, f"tags.{tags.OVERLAP}")
    if not overlap.notna().any():
        return kept
    bench = column(kept, RUNG_COLUMNS[0]).astype(object)
    label = bench.where(overlap.isna(), bench + " overlap=" + overlap.astype(object))
    taught = column(kept, f"tags.{tags.TEACHERS}").fillna("").ne("")
    parts = [kept[taught].assign(**{RUNG_COLUMNS[0]: label[taught]})]
    for name in bench[~taught].dropna().unique():
        labels = sorted(label[taught & bench.eq(name)].unique()) or [name]
        of_bench = kept[~taught & bench.eq(name)]
        parts += [of_bench.assign(**{RUNG_COLUMNS[0]: one}) for one in labels]
    return pd.concat(parts, ignore_index=True)


def one_configuration(selection: Selection) -> Selection:
    """Leave out runs that a mean over seeds must not mix, for each bench and rung.

    Of several configurations (told apart by the tag of their recipe, or else by all parameters but
    seeds and `runtime`) the rung's default is kept: the one for which nothing was typed but what
    most runs of the other rungs have. Of equals the one with the most seeds, of equals the one
    that has most in common with the other rungs of the bench, of equals the best on validation, of
    equals the one that was started last; then the newest run of each seed. Reasons: no seed, other
    configuration (with two parameters in which it differs, or as many as tell it from others),
    older run of the same seed. The runs that are kept have two columns more, `CONFIGURATION` and
    `WHY`.
    """
    kept, left_out = selection
    reason = pd.Series(None, kept.index, dtype=object)
    reason[seeds_of(kept).isna()] = "no seed"
    shown = pd.DataFrame("", kept.index, [CONFIGURATION, WHY])
    usable = _varying(kept[reason.isna()]).assign(**{_TYPED: _typed})
    of_rung = [column(usable, name) for name in RUNG_COLUMNS]
    for _, group in usable.groupby(of_rung, dropna=False):
        beside = usable.drop(group.index)
        choice = _choice(group, beside[_bench_of(beside).eq(_bench_of(group).iloc[0])])
        reason.update(choice.reasons)
        shown.loc[group.index, CONFIGURATION] = choice.configuration
        shown.loc[group.index, WHY] = choice.why
    chosen = split(kept.assign(**{name: shown[name] for name in (CONFIGURATION, WHY)}), reason)
    out = chosen.left_out.drop(columns=list(shown))
    parts = [part for part in (left_out, out) if len(part)]
    return Selection(chosen.kept, pd.concat(parts) if parts else left_out)


def shown_with(selection: Selection, bench: str) -> tuple[str, ...]:
    """Of each rung of a bench that ran in several configurations: which one is shown, why, and how
    many runs of which others are left aside. `selection` is what `one_configuration` gives."""
    kept, left_out = (runs[_bench_of(runs).eq(bench)] for runs in selection)
    several = kept[column(kept, CONFIGURATION).fillna("").ne("")]
    sentences = []
    for rung, runs in several.groupby(RUNG_COLUMNS[1], sort=False):
        reasons = left_out.loc[column(left_out, RUNG_COLUMNS[1]).eq(rung), "reason"]
        others = reasons[reasons.str.startswith(_OTHER)].str.slice(len(_OTHER) + 2, -1)
        counts = others.value_counts(sort=False)
        listed = [f"{other} ({_runs(count)})" for other, count in counts.items()]
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        shown = str(runs[CONFIGURATION].iloc[0])
        of_beta = all(_BETA_ALONE.fullmatch(one) for one in (shown, *counts.index))
        how = "; what=beta compares them" * of_beta
        sentences.append(
            f"{rung} is shown with {shown} ({_runs(len(runs))}), "
            f"{runs[WHY].iloc[0]}; left aside: {', '.join(listed[:_LISTED])}{more}{how}."
        )
    return tuple(sentences)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _varying(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the parameters that are the same in all runs: they tell nothing apart, and most
    of a hundred are."""
    parameters = [name for name in runs if str(name).startswith("params.")]
    same = [name for name in parameters if runs[name].nunique(dropna=False) < 2]
    return runs.drop(columns=same)


def seeds_of(frame: pd.DataFrame) -> pd.Series:
    """The seed of each run as a number, NaN where its tag is missing or not a number."""
    return pd.to_numeric(column(frame, f"tags.{tags.SEED}"), errors="coerce")


def same_setting(kept: pd.DataFrame, bench: str, rung: str, other: str) -> bool:
    """Whether two rungs were trained on the same data with the same student and budget, as far as
    their runs say: only then is a difference between them one of methods."""
    wanted = {*RUNG_COLUMNS, f"tags.{tags.SETTING}"}
    few = kept[[name for name in kept if name in wanted]]  # of hundreds of columns
    runs = few[column(few, RUNG_COLUMNS[0]).eq(bench)]
    settings = [
        set(column(runs[column(runs, RUNG_COLUMNS[1]).eq(one)], f"tags.{tags.SETTING}").dropna())
        for one in (rung, other)
    ]
    return not all(settings) or settings[0] == settings[1]


def not_shared(kept: pd.DataFrame, bench: str) -> tuple[str, ...]:
    """Parameters that should be equal in all rungs of a bench and are not, one sentence each."""
    runs = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    runs = runs[column(runs, f"tags.{tags.MATCHED_TO}").isna()]  # its budget is the rung's time
    fuses = column(runs, "params.method.kd_target").isin(["synergy", "auto"])
    settings = _differing(runs, _SHARED) or _other_data(runs)
    return (*settings, *_differing(runs[fuses], _FUSED))


def _other_data(runs: pd.DataFrame) -> list[str]:
    """What the tags of settings tell apart and no parameter does: the images or their labels."""
    rungs = runs.groupby(column(runs, f"tags.{tags.SETTING}"))[RUNG_COLUMNS[1]].unique()
    listed = "; ".join(", ".join(sorted(of)) for of in rungs)
    return [f"the data are not the same everywhere ({listed})"] if len(rungs) > 1 else []


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


class _Choice(NamedTuple):
    """Why runs of a bench and rung do not count (only those that do not), the configuration of
    those that do, and why that one: both empty where there is no other."""

    reasons: pd.Series
    configuration: str
    why: str


_OTHER = "other configuration"
_UNNAMED = "other teachers or numerics"  # what no parameter tells apart
_LISTED = 6  # configurations that are named
_WHY = (
    "its default",
    "the one with the most seeds",
    "the one that has most in common with the other rungs",
    "the best on validation",
)
_LAST = "the one that was started last"


def _choice(group: pd.DataFrame, beside: pd.DataFrame) -> _Choice:
    """Which configuration of a bench and rung counts. `beside`: the runs of the other rungs."""
    newest_first = group.sort_values(["start_time", "run_id"], ascending=False)
    parameters = configuration(newest_first)
    typed = pd.Series(["\n".join(row) for row in parameters.to_numpy()], parameters.index)
    of_run = column(newest_first, f"tags.{tags.RECIPE}").fillna(typed)
    seeds = seeds_of(newest_first)
    # In the order of the newest run of each, so that the newest of equals is taken.
    merits = [
        _default(newest_first, beside).groupby(of_run, sort=False).max(),
        seeds.groupby(of_run, sort=False).nunique(),
        _agreement(newest_first, parameters, beside).groupby(of_run, sort=False).max(),
        _validation(newest_first).groupby(of_run, sort=False).mean(),
    ]
    merit = {recipe: tuple(one[recipe] for one in merits) for recipe in merits[0].index}
    best = max(merit, key=lambda recipe: merit[recipe])
    same = of_run.eq(str(best))
    told_apart = _typed_first(parameters, newest_first[_TYPED])
    of_recipe = parameters[told_apart].groupby(of_run, sort=False).first()
    labels = _labels(of_recipe, of_recipe.loc[best])
    reasons = {run: f"{_OTHER} ({labels[of_run[run]]})" for run in same.index[~same]}
    repeated = seeds[same].duplicated()
    reasons |= dict.fromkeys(repeated.index[repeated], "older run of the same seed")
    of_reasons = pd.Series(reasons, dtype=object)
    if len(merit) == 1:
        return _Choice(of_reasons, "", "")
    why = _decided([one for recipe, one in merit.items() if recipe != best], merit[best])
    named = _listed(of_recipe.loc[best]) if told_apart else "one set of teachers"
    return _Choice(of_reasons, named, why)


def _decided(others: list[tuple], best: tuple) -> str:
    """The first merit after which no other configuration is as good as the best."""
    for place, why in enumerate(_WHY):
        others = [one for one in others if one[place] == best[place]]
        if not others:
            return why
    return _LAST


def _default(group: pd.DataFrame, beside: pd.DataFrame) -> pd.Series:
    """Whether nothing was typed for a run but what was typed for most runs of the other rungs;
    False where a run does not say what was typed."""
    common = frozenset(overrides.common(beside[_TYPED].dropna()))
    return group[_TYPED].map(lambda words: words == common).astype(bool)


def _validation(runs: pd.DataFrame) -> pd.Series:
    """The accuracy by which an epoch was selected; below all others where there is none."""
    return column(runs, f"metrics.{metrics.BEST_VAL_TOP1}").astype(float).fillna(-1.0)


def _typed(runs: pd.DataFrame) -> pd.Series:
    """The words typed for each run that can set it apart from others of its rung; None where the
    run does not say."""
    return overrides.words(runs).map(
        lambda words: frozenset(w for w in words if not _OWN_WORD.fullmatch(w)), na_action="ignore"
    )


def _agreement(group: pd.DataFrame, parameters: pd.DataFrame, beside: pd.DataFrame) -> pd.Series:
    """How many (other run, parameter) pairs each run has in common with the other rungs; the terms
    of a method are compared with those of rungs of the same method alone."""
    method = f"tags.{tags.METHOD}"
    own = column(group, method).iloc[0]
    others = configuration(beside).reindex(columns=parameters.columns, fill_value=_ABSENT)
    alike = others[column(beside, method).eq(own)] if isinstance(own, str) else others
    same = []
    for name in parameters:
        known = (alike if str(name).startswith("params.method.") else others)[name]
        same.append(parameters[name].map(known.value_counts()).fillna(0))
    return pd.concat(same, axis=1).sum(axis=1) if same else pd.Series(0.0, parameters.index)


def configuration(group: pd.DataFrame) -> pd.DataFrame:
    """The parameters that can change a result, seeds left out, as text. Absent ones are null: a
    run of an older version has no word of a later option."""
    columns = [name for name in group if str(name).startswith("params.")]
    wanted = [name for name in columns if not _NOT_CONFIGURATION.fullmatch(str(name))]
    return group[wanted].astype(object).fillna(_ABSENT).astype(str)


def _typed_first(parameters: pd.DataFrame, typed_words: pd.Series) -> list[str]:
    """The parameters that are not the same in all runs, first those that were typed."""
    typed_keys = {w.partition("=")[0] for words in typed_words.dropna() for w in words}
    differing = [str(name) for name in parameters.columns[parameters.nunique() > 1]]
    return sorted(differing, key=lambda name: name.removeprefix("params.") not in typed_keys)


def _labels(of_recipe: pd.DataFrame, reference: pd.Series) -> dict[str, str]:
    """Where each configuration differs from the one that counts: as many parameters as it takes
    to tell all of them from each other, two at least."""
    differing = {str(recipe): one[one != reference] for recipe, one in of_recipe.iterrows()}

    def listed(most: int) -> dict[str, str]:
        return {recipe: _listed(one, most) for recipe, one in differing.items()}

    possible, most = len(set(listed(len(reference)).values())), 2
    while len(set((found := listed(most)).values())) < possible:
        most += 1
    return found


def _listed(parameters: pd.Series, most: int = 2) -> str:
    """So many parameters with their values; none where only what is no parameter differs."""
    first = parameters.iloc[:most].items()
    shown = [f"{str(key).removeprefix('params.')}={value}" for key, value in first]
    return ", ".join(shown or [_UNNAMED]) + ", …" * (len(parameters) > most)
