"""Like with like: what differs between two rungs of a bench beside the method."""

import re
from collections.abc import Mapping

import pandas as pd

from analysis import tags
from analysis.runs import column
from analysis.selection.configurations import RUNG_COLUMNS

# Parameters that have to be equal; what a rung or a method is made of is not among them.
_PROBLEM = re.compile(
    r"params\.((data\.(?!root|download|teacher_limit|every_label)|student\.|mix\.|numerics\.|optim\.batch).*"
    r"|budget\.student_epochs|select)"
)
_OF_TEACHERS = re.compile(r"params\.(teacher\..*|data\.teacher_limit)")
_EPOCHS = "params.budget.student_epochs"
_NAMES = {
    f"tags.{tags.SETTING}": "data, student or budget (tag setting)",
    f"tags.{tags.VERSION}": "version of the numerics",
    f"tags.{tags.TEACHERS}": "teachers",
    f"tags.{tags.TEACHER_KEYS}": "teachers (keys)",
}

Facts = Mapping[str, frozenset[str]]


def facts(of_rung: pd.DataFrame) -> dict[str, frozenset[str]]:
    """By column: the values of the runs of one rung in everything that a comparison with another
    rung needs equal. What no run says is left out, and so are a matched budget, which is to differ,
    and the teachers of a student that has none."""
    wanted = [str(name) for name in of_rung if _PROBLEM.fullmatch(str(name))]
    wanted += [f"tags.{tags.SETTING}", f"tags.{tags.VERSION}"]
    if column(of_rung, f"tags.{tags.MATCHED_TO}").notna().any():
        wanted = [name for name in wanted if name != _EPOCHS]
    if column(of_rung, f"tags.{tags.TEACHERS}").fillna("").ne("").any():
        wanted += [str(name) for name in of_rung if _OF_TEACHERS.fullmatch(str(name))]
        wanted += [f"tags.{tags.TEACHERS}", f"tags.{tags.TEACHER_KEYS}"]
    values = {name: column(of_rung, name).dropna() for name in wanted}
    return {name: frozenset(of.astype(str)) for name, of in values.items() if len(of)}


def facts_by_rung(kept: pd.DataFrame, bench: str) -> dict[str, Facts]:
    """`facts` of each rung of a bench."""
    on_bench = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    rungs = on_bench.groupby(column(on_bench, RUNG_COLUMNS[1]), sort=False)
    return {str(rung): facts(of) for rung, of in rungs}


def unlike(one: Facts, other: Facts) -> tuple[str, ...]:
    """What differs, by name with both values; empty where the two may be compared. Of values that
    the parameters show the tag of the setting says nothing new."""
    found = [name for name in one if name in other and one[name] != other[name]]
    params = [name for name in found if name.startswith("params.")]
    by_tag = [name for name in found if name.startswith("tags.")]
    if params:
        by_tag = [name for name in by_tag if name != f"tags.{tags.SETTING}"]
    return tuple(_named(name, one[name], other[name]) for name in [*by_tag, *params])


def _named(name: str, one: frozenset[str], other: frozenset[str]) -> str:
    label = _NAMES.get(name, name.removeprefix("params."))
    if name == f"tags.{tags.SETTING}":
        return label
    return f"{label} ({', '.join(sorted(one))} and {', '.join(sorted(other))})"
