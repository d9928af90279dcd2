"""Configurations of a rung: which one is compared, and what differs between rungs."""

import re
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.runs import Selection, column, split

ALONE = ("CE", "CE_matched", "CE_all", "ce", "self")  # students without the bench's teachers
RUNG_COLUMNS = (f"tags.{tags.BENCH}", f"tags.{tags.RUNG}")

# Of runs that count: the configuration that their rung is shown with, and why that one; empty
# where the rung has no other.
CONFIGURATION, WHY = "configuration", "configuration_why"
_SETTING, _VARIANT = f"tags.{tags.SETTING}", f"tags.{tags.VARIANT}"
# What the configuration of a rung should have in common with the other rungs, first things first.
_ALIKE = (
    _SETTING,
    f"tags.{tags.TEACHER_KEYS}",
    f"tags.{tags.TEACHERS}",
    f"tags.{tags.VERSION}",
    _VARIANT,
)
_BETA_ALONE = re.compile(r"method\.ib_beta=[^,]*")
_ABSENT = "None"  # null, as it is logged
_ANOTHER = "To show another configuration, leave out the others: tag.variant=…, since=… or until=…"

# Parameters that every rung of a bench shares unless budgets or data differ.
_SHARED = re.compile(
    r"params\.(budget\.student_epochs|(data(?!\.(teacher_limit|every_label))|student|optim|mix|numerics)\..*"
    r"|select)"
)

# Parameters that the rungs with a fusion module share too: all of the method but their factors.
_FUSED = re.compile(
    r"params\.method\.(?!name|kd_target|bottleneck|num_stages|adapt|teacher_levels|student_levels"
    r"|level_starts|freeze_bn|placebo|target_view).*"
)

# Parameters that may differ between the seeds of one configuration: the seeds themselves (the
# teachers' too), what does not change results, and the overrides as they were given.
_NOT_CONFIGURATION = re.compile(
    r"params\.((.*\.)?seed|runtime\..*|data\.root|data\.download|overrides)"
)


# Parameters that a run without teachers logs and does not use.
_OF_TEACHERS = re.compile(r"params\.(teacher\.|overlap|data\.teacher_limit).*")


def by_overlap(kept: pd.DataFrame) -> pd.DataFrame:
    """The runs with specialised teachers as a separate bench, `digits overlap=50`: they are another
    problem with other controls. A run without the tag has full teachers, an overlap of 100; one
    without teachers belongs to each of these benches."""
    overlap = column(kept, f"tags.{tags.OVERLAP}")
    if not overlap.notna().any():
        return kept
    bench = column(kept, RUNG_COLUMNS[0]).astype(object)
    label = bench.where(overlap.isna(), bench + " overlap=" + overlap.astype(object))
    teachers, rung = column(kept, f"tags.{tags.TEACHERS}"), column(kept, RUNG_COLUMNS[1])
    alone = teachers.eq("") | (teachers.isna() & (rung.isna() | rung.isin(ALONE)))
    taught = ~alone | overlap.notna()
    parts = [kept[taught].assign(**{RUNG_COLUMNS[0]: label[taught]})]
    for name in bench[~taught].dropna().unique():
        labels = sorted(label[taught & bench.eq(name)].unique()) or [name]
        of_bench = kept[~taught & bench.eq(name)]
        parts += [of_bench.assign(**{RUNG_COLUMNS[0]: one}) for one in labels]
    return pd.concat(parts, ignore_index=True)


def labels_of(kept: pd.DataFrame) -> pd.Series:
    """The number of labelled images of each run with unlabelled ones; NaN of the others, and where
    all images have labels."""
    unlabelled = column(kept, "params.data.unlabelled").astype(object)
    few = unlabelled.notna() & ~unlabelled.isin(["0", _ABSENT])
    return pd.to_numeric(column(kept, "params.data.train_limit"), errors="coerce").where(few)


def by_labels(kept: pd.DataFrame) -> pd.DataFrame:
    """The runs of each number of labels as a separate bench, `digits labels=50`, where a bench has
    several: they are another problem with other controls."""
    labels, bench = labels_of(kept), column(kept, RUNG_COLUMNS[0]).astype(object)
    several = labels.groupby(bench).transform("nunique").gt(1) & labels.notna()
    named = bench + " labels=" + labels.fillna(0).astype(int).astype(str)
    return kept.assign(**{RUNG_COLUMNS[0]: bench.where(~several, named)}) if several.any() else kept


def by_problem(kept: pd.DataFrame) -> pd.DataFrame:
    """The runs of each overlap and number of labels as a separate bench."""
    return by_labels(by_overlap(kept))


def one_configuration(selection: Selection) -> Selection:
    """Leave out runs that a mean over seeds must not mix, for each bench and rung.

    Of several configurations (runs of one recipe key; of runs without one, those that have all
    parameters but seeds and `runtime` in common) one is kept: one that was not only trained to
    teach another rung (`self`), that in the setting and with the variant of most of the other
    rungs, of equals the rung's default (its variant is empty), of equals the newest; then the
    newest run of each seed. Runs of older versions have no variant.
    Reasons: no seed that is a whole number, other configuration (with two parameters in which it
    differs, or as many as distinguish it from others), older run of the same seed. The runs that
    are kept have two columns more, `CONFIGURATION` and `WHY`.
    """
    kept, left_out = selection
    reason = pd.Series(None, kept.index, dtype=object)
    reason[seeds_of(kept).isna()] = "no seed that is a whole number"
    shown = pd.DataFrame("", kept.index, [CONFIGURATION, WHY])
    usable = _varying(kept[reason.isna()])
    bench = _bench_of(usable)
    of_rung = [column(usable, name) for name in RUNG_COLUMNS]
    for _, group in usable.groupby(of_rung, dropna=False):
        on_bench = usable[bench.eq(bench[group.index[0]])]
        choice = _choice(group, on_bench.drop(group.index, errors="ignore"))
        reason.update(choice.reasons)
        shown.loc[group.index, CONFIGURATION] = choice.configuration
        shown.loc[group.index, WHY] = choice.why
    chosen = split(kept.assign(**{name: shown[name] for name in (CONFIGURATION, WHY)}), reason)
    out = chosen.left_out.drop(columns=list(shown))
    parts = [part for part in (left_out, out) if len(part)]
    return Selection(chosen.kept, pd.concat(parts) if parts else left_out)


def shown_with(selection: Selection, bench: str) -> tuple[str, ...]:
    """A sentence on each rung of a bench that ran in several configurations: which one is shown,
    why, and how many runs of which others are left aside; then how to choose another. `selection`:
    from `one_configuration`."""
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
    return (*sentences, _ANOTHER) if sentences else ()


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _varying(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the parameters that are the same in all runs, which most of a hundred are."""
    parameters = [name for name in runs if str(name).startswith("params.")]
    same = [name for name in parameters if runs[name].nunique(dropna=False) < 2]
    return runs.drop(columns=same)


def seeds_of(frame: pd.DataFrame) -> pd.Series:
    """The seed of each run, NaN where its tag is missing or no whole number."""
    seeds = pd.to_numeric(column(frame, f"tags.{tags.SEED}"), errors="coerce")
    return seeds.where(seeds.mod(1).eq(0) & seeds.abs().lt(2**53))


def not_shared(kept: pd.DataFrame, bench: str) -> tuple[str, ...]:
    """Parameters that should be equal in all rungs of a bench and are not, one sentence each."""
    runs = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    runs = runs[column(runs, f"tags.{tags.MATCHED_TO}").isna()]  # its budget is the rung's time
    fuses = column(runs, "params.method.kd_target").isin(["synergy", "auto"])
    settings = _differing(runs, _SHARED) or _other_data(runs)
    return (*settings, *_differing(runs[fuses], _FUSED), *_environment(runs))


def _other_data(runs: pd.DataFrame) -> list[str]:
    """A difference in the tags of settings that no parameter has: the images or their labels."""
    rungs = runs.groupby(column(runs, f"tags.{tags.SETTING}"))[RUNG_COLUMNS[1]].unique()
    listed = "; ".join(", ".join(sorted(of)) for of in rungs)
    return [f"the data are not the same everywhere ({listed})"] if len(rungs) > 1 else []


def _environment(runs: pd.DataFrame) -> list[str]:
    """Devices and versions of torch, where they differ."""
    return [
        sentence
        for tag in (tags.DEVICE, tags.TORCH)
        for sentence in _named_values(runs, tag, column(runs, f"tags.{tag}"))
    ]


def _differing(runs: pd.DataFrame, which: re.Pattern[str]) -> list[str]:
    parameters = configuration(runs[[name for name in runs if which.fullmatch(str(name))]])
    return [
        sentence
        for name in parameters
        for sentence in _named_values(runs, str(name).removeprefix("params."), parameters[name])
    ]


def _named_values(runs: pd.DataFrame, name: str, values: pd.Series) -> list[str]:
    """Which rungs have which value of something that should be the same; nothing where it is."""
    if values.nunique() < 2:
        return []
    rungs = runs.groupby(values)[RUNG_COLUMNS[1]].unique()
    listed = "; ".join(f"{value}: {', '.join(sorted(of))}" for value, of in rungs.items())
    return [f"{name} is not the same everywhere ({listed})"]


def _bench_of(frame: pd.DataFrame) -> pd.Series:
    return column(frame, RUNG_COLUMNS[0])


class _Choice(NamedTuple):
    """The reasons of the runs of a bench and rung that do not count, the configuration of those
    that do, and why that one: both empty where there is no other."""

    reasons: pd.Series
    configuration: str
    why: str


_OTHER = "other configuration"
_UNNAMED = "other teachers or numerics"  # differences that no parameter has
_LISTED = 6  # configurations that are named


def _choice(group: pd.DataFrame, others: pd.DataFrame) -> _Choice:
    """Which configuration of a bench and rung counts. `others`: the runs of the other rungs."""
    newest_first = group.sort_values(["start_time", "run_id"], ascending=False)
    parameters, recipe = configuration(newest_first), recipes(newest_first)
    best, why = _default(newest_first, recipe, others)
    seeds, same = seeds_of(newest_first), recipe.eq(best)
    differing = _variants_first(parameters, column(newest_first, _VARIANT))
    of_recipe = parameters[differing].groupby(recipe, sort=False).first()
    kept: pd.Series = of_recipe.loc[str(best)]  # type: ignore[assignment]
    labels = _labels(of_recipe, kept)
    reasons = {run: f"{_OTHER} ({labels[recipe[run]]})" for run in same.index[~same]}
    repeated = seeds[same].duplicated()
    reasons |= dict.fromkeys(repeated.index[repeated], "older run of the same seed")
    if same.all():
        return _Choice(pd.Series(reasons, dtype=object), "", "")
    named = _listed(kept) if differing else "one set of teachers"
    return _Choice(pd.Series(reasons, dtype=object), named, why)


def _default(runs: pd.DataFrame, recipe: pd.Series, others: pd.DataFrame) -> tuple[str, str]:
    """The recipe that a rung is shown with, and why. `runs`: of the rung, the newest first."""
    common = {tag: _most(others, tag) for tag in _ALIKE}
    teaching = set(column(others, f"tags.{tags.OWN_TEACHER}").dropna())
    rank = {}
    for name, same in runs.groupby(recipe, sort=False):
        keys = set(column(same, f"tags.{tags.RUN_KEY}").dropna())
        control = not keys or not keys <= teaching  # not trained to teach another rung alone
        values = {tag: column(same, tag).bfill().iloc[0] for tag in _ALIKE}
        alike = (values[tag] in common[tag] for tag in _ALIKE)
        rank[str(name)] = (control, *alike, values[_VARIANT] == "")
    best = max(rank, key=lambda name: rank[name])  # the newest of equals
    if list(rank.values()).count(rank[best]) > 1:
        return best, "the one that was started last"
    if sum(control for control, *_ in rank.values()) == 1:
        return best, "the one that does not teach another rung"
    return best, "its default" if rank[best][-1] else "as most of the other rungs"


def _most(others: pd.DataFrame, tag: str) -> set[str]:
    """The values of a tag that more than half of the rungs have."""
    rung = column(others, RUNG_COLUMNS[1])
    rungs = rung.groupby(column(others, tag)).nunique()
    return set(rungs.index[rungs > rung.nunique() / 2])


def recipes(group: pd.DataFrame) -> pd.Series:
    """The configuration of each run: its recipe key, or all its parameters where it has none."""
    parameters = configuration(group)
    as_text = pd.Series(["\n".join(row) for row in parameters.to_numpy()], parameters.index)
    return column(group, f"tags.{tags.RECIPE}").fillna(as_text)


def configuration(group: pd.DataFrame) -> pd.DataFrame:
    """The parameters that can change a result, without seeds and, where a run has no teachers,
    without theirs, as text. Absent ones are null, and switches off: a run of an older version has
    no later option."""
    columns = [name for name in group if str(name).startswith("params.")]
    wanted = [name for name in columns if not _NOT_CONFIGURATION.fullmatch(str(name))]
    if column(group, f"tags.{tags.TEACHERS}").eq("").any():
        wanted = [name for name in wanted if not _OF_TEACHERS.fullmatch(str(name))]
    found = group[wanted].astype(object).fillna(_ABSENT).astype(str)
    either = {_ABSENT, "True", "False"}
    for name in found:
        if _ABSENT in (values := set(found[name])) and 1 < len(values) <= len(values & either):
            found[name] = found[name].replace(_ABSENT, "False")
    return found


def _variants_first(parameters: pd.DataFrame, variants: pd.Series) -> list[str]:
    """The parameters that are not the same in all runs, first those that a variant names."""
    named = {key for text in variants.dropna() for key in re.findall(r"([^\s=]+)=", text)}
    differing = [str(name) for name in parameters.columns[parameters.nunique() > 1]]
    return sorted(differing, key=lambda name: name.removeprefix("params.") not in named)


def _labels(of_recipe: pd.DataFrame, reference: pd.Series) -> dict[str, str]:
    """Where each configuration differs from the one that counts: as many parameters as it takes
    to distinguish all of them, at least two."""
    differing = {str(recipe): one[one != reference] for recipe, one in of_recipe.iterrows()}

    def listed(most: int) -> dict[str, str]:
        return {recipe: _listed(one, most) for recipe, one in differing.items()}

    possible, most = len(set(listed(len(reference)).values())), 2
    while len(set((found := listed(most)).values())) < possible:
        most += 1
    return found


def _listed(parameters: pd.Series, most: int = 2) -> str:
    """The first parameters with their values; `_UNNAMED` where no parameter differs."""
    first = parameters.iloc[:most].items()
    shown = [f"{str(key).removeprefix('params.')}={value}" for key, value in first]
    return ", ".join(shown or [_UNNAMED]) + ", …" * (len(parameters) > most)
