"""What the documents show of reports is what their commands print today, from exported stores."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis.claim_words import p_value
from analysis.claims import Family, family
from analysis.render.text import as_terminal
from analysis.runs import exported_experiment, load_history, load_runs
from analysis.sections.registry import report_of
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import by_overlap, by_problem
from analysis.selection.experiment import ExperimentReader
from analysis.selection.filters import RunFilter
from analysis.stats import mean_interval, paired_difference
from analysis.stores.mlflow_client import NoAnswer
from pipeline.analyze import analyse_command
from pipeline.config import ConfigError
from trainers import metrics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("results.md", "analysis.md")]
MOST_BYTES = 5_000_000  # of the exports of one question, whose rounds are several studies
SHOWN = re.compile(
    r"```bash\n(?:.*\n)*?python -m pipeline analyze (?P<options>store=.*)\n```\n+"
    r"```text\n(?P<text>(?:.*\n)*?)```"
)


def _blocks() -> list[tuple[dict[str, str], str]]:
    """(options of the command, the text that a page shows of it)."""
    found = [block for page in PAGES for block in SHOWN.finditer(page.read_text())]
    return [(dict(w.split("=", 1) for w in m["options"].split()), m["text"]) for m in found]


BLOCKS = _blocks()


def test_the_pages_have_tables() -> None:
    assert {options["what"] for options, _ in BLOCKS} >= {"beta", "ladder", "comprehensive"}


LONG = ("comprehensive", "ladder")
CASES = [
    pytest.param(*block, marks=[pytest.mark.thorough] * (block[0]["what"] in LONG))
    for block in BLOCKS
]


@pytest.mark.parametrize(("options", "text"), CASES, ids=[b[0]["what"] for b in BLOCKS])
def test_a_table_is_made_from_its_export(options: dict[str, str], text: str) -> None:
    filters = RunFilter(options.get("bench"), primary=options.get("primary"))
    reading = ExperimentReader(str(ROOT / options["store"]), options["experiment"], filters)
    what = options["what"]
    printed = as_terminal(report_of(reading, what))
    assert len(text) > 300
    assert text.strip() in printed


def _summary() -> list[tuple[str, ...]]:
    """(export, claim, difference, n, p, time) of the table that begins the results."""
    found, export = [], ""
    for line in PAGES[0].read_text().partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and " − " in cells[1]:
            export = (re.findall(r"`(\w+)`", cells[0]) or [export])[0]
            found.append((export, *cells[1:]))
    return found


SUMMARY = _summary()


def test_the_summary_has_every_study_of_the_proof() -> None:
    exports = {path.name.removesuffix(".db.xz") for path in (ROOT / "docs/data").glob("proof*")}
    assert {row[0] for row in SUMMARY} == exports - {"proof_pretrained_overlap0_weights"}


@cache
def _claims(export: str, primary: str | None) -> Family:
    path = str(ROOT / "docs" / "data" / f"{export}.db.xz")
    reading = ExperimentReader(path, exported_experiment(path))
    runs = by_overlap(reading.runs)
    (bench,) = runs["tags.bench"].dropna().unique()
    return family(BenchRuns(bench, runs, reading.history, primary))


@pytest.mark.parametrize("row", SUMMARY, ids=[f"{r[0]}: {r[1]}" for r in SUMMARY])
def test_a_row_of_the_summary_is_made_from_its_export(row: tuple[str, ...]) -> None:
    export, claim, difference, n, p, time = row
    rung, reference = claim.strip("*").split(" − ")
    (options,) = [o for o, _ in BLOCKS if f"/{export}." in o["store"] and o["what"] == "ladder"]
    claims = _claims(export, options.get("primary"))
    (found,) = [c for c in claims.claims if (c.rung, c.reference) == (rung, reference)]
    low, high = 100 * found.interval.low, 100 * found.interval.high
    shown = f"{100 * found.interval.mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    assert (difference, n) == (shown, str(found.interval.n))
    assert (p, time) == (p_value(found.adjusted), f"{found.times:.2f} ×")
    assert ("**" in claim) == found.primary


ASKED = re.compile(r"^\| `(proof_\w+)` \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([^|]+) \|", re.M)


@pytest.mark.parametrize("row", ASKED.findall(PAGES[0].read_text()), ids=lambda row: row[0])
def test_the_gain_over_the_student_that_asks_is_made_from_its_export(row: tuple[str, ...]) -> None:
    """The last stage's fusion less the student at the start of that stage."""
    export, rung, fused, asks, shown = row
    runs = _runs(f"{export}.db.xz").query("`tags.stage` == 'distill' and status == 'FINISHED'")
    runs = runs[runs["tags.rung"] == rung].set_index("run_id")
    names = [metrics.VAL_TOP1, metrics.SYNERGY_TOP1]
    history = load_history(str(ROOT / "docs" / "data" / f"{export}.db.xz"), list(runs.index), names)
    asked = []
    for run_id in runs.index:
        own = history[history["run_id"] == run_id]
        last = own.loc[own["metric"] == metrics.SYNERGY_TOP1, "step"].max()
        before = own[(own["metric"] == metrics.VAL_TOP1) & (own["step"] < last)]
        asked.append(before.sort_values("step")["value"].iloc[-1])
    restored = runs[f"metrics.{metrics.SYNERGY_RESTORED}"].astype(float)
    gain = mean_interval((100 * (restored - asked)).tolist())
    text = f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]".replace("-", "−")
    assert (fused, asks) == (f"{100 * restored.mean():.2f}", f"{100 * sum(asked) / len(asked):.2f}")
    assert shown.strip() == text


@pytest.mark.parametrize(
    ("heading", "export"),
    [("## The recipes\n", "tune_fashion_mnist_4k"), ("### Its recipes\n", "tune_pretrained")],
)
def test_the_recipes_of_the_protocol_are_what_tuning_found(heading: str, export: str) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text().partition(heading)[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    rates = [float(cell) for cell in lines[0][1:]]
    reported, bold = Counter(), {}
    for label, *cells in lines[1:]:
        rung = label.strip(" *`,").split(",")[0].strip("*` ")
        for rate, cell in zip(rates, cells, strict=True):
            reported[rung, rate, cell.strip(" *")] += 1
            if "**" in cell:
                bold[rung] = (rate, float(cell.strip(" *")))
    runs = _runs(f"{export}.db.xz")
    students = runs[(runs["tags.stage"] == "distill") & (runs["status"] == "FINISHED")]
    assert set(students["tags.seed"]) == {"100"}
    values = students[f"metrics.{metrics.BEST_VAL_TOP1}"].mul(100).round(2)
    rates_of = students["params.optim.lr"].astype(float)
    found = list(zip(students["tags.rung"], rates_of, values, strict=True))
    assert reported == Counter((rung, rate, f"{value:.2f}") for rung, rate, value in found)
    for rung in students["tags.rung"].unique():
        best = max((one for one in found if one[0] == rung), key=lambda one: one[2])
        assert bold[rung] == best[1:]


def test_later_rounds_had_the_teachers_that_the_protocol_says() -> None:
    text = " ".join((ROOT / "docs" / "protocol.md").read_text().split())
    longer, more = (
        _runs(f"{name}.db.xz").query("`tags.stage` == 'finetune' and status == 'FINISHED'")
        for name in ("tune_longer", "tune_pretrained")
    )
    val, test = f"metrics.{metrics.BEST_VAL_TOP1}", f"metrics.{metrics.TEST_TOP1}"
    low, high = sorted(100 * longer[val])
    printed = f"{low:.1f} and {high:.1f} % of validation ({100 * longer[test].min():.1f} and "
    assert printed + f"{100 * longer[test].max():.1f} % of test)" in text
    low, high = sorted(100 * more[val])
    assert f"{high:.2f} and {low:.2f} % of validation, 91.6 % of test" in text
    assert set((100 * more[test]).round(1)) == {91.6}
    ce = _runs("tune_longer.db.xz").query("`tags.rung` == 'CE'")[val] * 100
    assert f"labels alone {ce.min():.1f} to {ce.max():.1f} %" in text


def test_the_gap_of_l4_opens_where_the_results_say() -> None:
    """Up to the tenth epoch L3 and L4 are one experiment; the ends are those in the text."""
    runs = _runs("proof_twins.db.xz")
    students = runs[runs["tags.rung"].isin(["L3", "L4"]) & (runs["status"] == "FINISHED")]
    rung = students.set_index("run_id")["tags.rung"]
    path = str(ROOT / "docs" / "data" / "proof_twins.db.xz")
    points = load_history(path, list(rung.index), [metrics.VAL_TOP1]).sort_values(
        ["run_id", "step"]
    )
    epoch = points.groupby("run_id", observed=True).cumcount() + 1
    mean = 100 * points.groupby([points["run_id"].map(rung), epoch])["value"].mean().unstack(0)
    assert len(mean) == 20
    assert (mean["L3"] == mean["L4"])[:10].all()
    assert (mean["L3"] > mean["L4"])[13:].all()
    ends = f"ends at {mean['L4'].iloc[-1]:.1f} % where L3 continues to {mean['L3'].iloc[-1]:.1f} %"
    assert ends in " ".join((ROOT / "docs" / "results.md").read_text().split())


@pytest.mark.thorough
def test_the_report_says_that_the_twins_had_little_to_teach() -> None:
    path = str(ROOT / "docs" / "data" / "proof_twins.db.xz")
    reading = ExperimentReader(path, exported_experiment(path), RunFilter())
    printed = " ".join(as_terminal(report_of(reading, "ladder")).split())
    assert "CE_matched has no teacher and reaches 89.12 [88.64, 89.61] % on validation" in printed


def test_the_second_round_rests_on_what_the_first_one_measured() -> None:
    runs = _runs("proof_twins.db.xz")
    best = runs.groupby("tags.rung")[f"metrics.{metrics.BEST_VAL_TOP1}"].mean() * 100
    epochs = runs.loc[runs["tags.rung"] == "CE_matched", "params.budget.student_epochs"].astype(int)
    teachers = runs[runs["tags.stage"] == "finetune"]
    reported = [
        f"given {epochs.min()} to {epochs.max()} epochs (CE_matched), "
        f"go from {best['CE']:.1f} to {best['CE_matched']:.1f} %",
        f"reach {100 * teachers[f'metrics.{metrics.BEST_VAL_TOP1}'].mean():.1f} %",
    ]
    text = " ".join((ROOT / "docs" / "protocol.md").read_text().split())
    assert [one for one in reported if one not in text] == []
    tests = sorted(100 * teachers[f"metrics.{metrics.TEST_TOP1}"], reverse=True)
    results = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"would-be teachers ({tests[0]:.2f} and {tests[1]:.2f} %)" in results


@cache
def _runs(export: str) -> pd.DataFrame:
    path = str(ROOT / "docs" / "data" / export)
    return load_runs(path, exported_experiment(path))


def test_the_exports_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "data").glob("*")}
    few = {name for name in sizes if re.search("few_labels|tune_(query|plain)", name)}
    for names in (few, sizes.keys() - few):
        assert 0 < sum(sizes[name] for name in names) < MOST_BYTES


def test_the_experiment_of_an_export_need_not_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    analyse_command([f"store={ROOT / 'docs/data/ladder_digits.db.xz'}", "what=health"])
    assert "Experiment asib/digits: health" in capsys.readouterr().out


def test_a_file_where_a_folder_is_wanted_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"out=.*: is a file; give a folder"):
        analyse_command([f"out={tmp_path / 'file'}"])
    store = ROOT / "docs/data/ladder_digits.db.xz"
    with pytest.raises(ConfigError, match=r"out=.*: no folder can be made there \(Not a dir"):
        analyse_command([f"store={store}", f"out={tmp_path / 'file' / 'below'}"])
    with pytest.raises(ConfigError, match=r"store=.*: not a file NAME\.db\.xz"):
        analyse_command([f"store={tmp_path / 'file'}"])


def test_a_store_that_does_not_answer_is_no_error_of_the_user() -> None:
    assert str(ConfigError.of(NoAnswer("is the server up?"))) == "is the server up?"
    assert "1 error:" in str(ConfigError.of(ValueError("no such bench")))


def test_the_check_of_kds_weight_is_what_the_page_says() -> None:
    study, check = (
        _runs(f"proof_pretrained_overlap0{name}.db.xz").query("status == 'FINISHED'")
        for name in ("", "_weights")
    )
    fused, light = (
        of[of["tags.rung"] == rung].set_index("tags.seed")[f"metrics.{metrics.TEST_TOP1}"].to_dict()
        for of, rung in ((study, "L2"), (check, "KD"))
    )
    found = paired_difference(fused, light)
    assert found.n == 5
    reported = f"({100 * sum(light.values()) / 5:.2f} %), but\nvaries more from seed to seed: "
    reported += f"L2 is over it by {100 * found.mean:.2f} points, {100 * found.low:.2f} to "
    assert reported.replace("-", "−") + f"{100 * found.high:.2f}" in PAGES[0].read_text()


def test_an_unknown_spread_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"spread=std: unknown.*interval.*sd"):
        analyse_command(["spread=std"])


def test_the_recipes_with_few_labels_are_what_tuning_found() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    table = text.partition("### The recipes with few labels\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `?(\w+)`? \|.*\| ([\d.]+) \|$", table, re.M))
    runs = _runs("tune_few_labels.db.xz").query("`tags.stage` == 'distill'")
    assert set(runs["tags.seed"]) == {"100"}
    assert set(runs["status"]) == {"FINISHED"}
    arms = runs[runs["tags.trial"].notna()]
    best = 100 * arms.groupby("tags.rung")[f"metrics.{metrics.BEST_VAL_TOP1}"].max()
    assert shown == {rung: f"{value:.2f}" for rung, value in best.items()}
    queried = arms[(arms["tags.rung"] == "L2") & (arms["params.method.query"] == "stage")]
    value = 100 * queried[f"metrics.{metrics.BEST_VAL_TOP1}"].max()
    assert f"With the student's query L2 reached {value:.2f}." in table
    assert set(arms["tags.rung"].value_counts()) == {16}


def test_the_recipes_against_the_stack_are_what_tuning_found() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    table = text.partition("### The recipes against the stack\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `?(\w+)`? \|.*\| ([\d.]+) \|$", table, re.M))
    runs = _runs("tune_query.db.xz").query("`tags.stage` == 'distill'")
    arms = runs[runs["tags.trial"].notna()].assign(arm=lambda r: r["tags.rung"].replace("L3", "L2"))
    means = arms.groupby(["arm", "tags.trial"])[f"metrics.{metrics.BEST_VAL_TOP1}"].agg(
        ["mean", "size"]
    )
    assert set(means["size"]) == {3}
    assert set(means.groupby("arm").size()) == {8}
    best = 100 * means["mean"].groupby("arm").max()
    assert shown == {arm: f"{value:.2f}" for arm, value in best.items()}
    trial = means["mean"]["L2"].idxmax()
    assert set(arms.loc[arms["tags.trial"] == trial, "params.method.folds"]) == {"5"}


def test_the_recipes_of_the_plain_fusion_are_what_tuning_found() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    table = text.partition("### The recipes of the plain fusion\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `?(\w+)`? \|.*\| ([\d.]+) \|$", table, re.M))
    best = {}
    for file, arm in (("tune_plain", "L0"), ("tune_query", "stack")):
        runs = _runs(f"{file}.db.xz").query("`tags.stage` == 'distill'")
        arms = runs[runs["tags.trial"].notna() & runs["tags.rung"].eq(arm)]
        means = arms.groupby("tags.trial")[f"metrics.{metrics.BEST_VAL_TOP1}"].agg(["mean", "size"])
        assert means["size"].tolist() == [3] * 8
        best[arm] = f"{100 * means['mean'].max():.2f}"
        if arm == "L0":
            recipe = arms[arms["tags.trial"].eq(means["mean"].idxmax())].iloc[0]
            assert recipe["params.method.residual"] == "True"
            assert recipe["params.method.query"] == "none"
            assert float(recipe["params.method.tau"]) == 4
    assert shown == best


def test_what_the_readme_says_of_few_labels_is_in_the_stores() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    claims = _claims("proof_few_labels", None)
    (primary,) = [claim for claim in claims.claims if claim.primary]
    assert primary.better
    gains = {c.reference: 100 * c.difference.interval.mean for c in primary.comparisons}
    assert (
        f"ASIB (L2) is {gains['CE']:.1f} points above the labels alone, {gains['self']:.1f} above "
        f"self-training and {gains['KD']:.1f} above the teachers' average (ten seeds"
    ) in text
    plain = _claims("proof_few_labels_plain", None)
    (against,) = [claim for claim in plain.claims if claim.primary]
    assert against.better
    assert against.interval.n == 20
    low, high = 100 * against.interval.low, 100 * against.interval.high
    shown = f"{100 * against.interval.mean:+.2f} points [{low:+.2f}, {high:+.2f}]"
    shown = f"{shown}, at {against.times:.2f} times the time"
    assert f"on both teachers' features (`cfg=stack`), by {shown} (twenty seeds" in text
    steps = plain.of("L2", "L0")
    assert steps is not None
    assert f"L2 is {-100 * steps.interval.mean:.1f} points below L0" in text
    level = plain.of("L2", "stack")
    assert level is not None
    assert level.interval.low < 0 < level.interval.high
    path = str(ROOT / "docs" / "data" / "few_labels_grid.db.xz")
    reading, shared = ExperimentReader(path, exported_experiment(path)), {}
    for bench, runs in by_problem(reading.runs).groupby("tags.bench"):
        if "overlap=50 " in str(bench):
            kept = BenchRuns(str(bench), runs, reading.history, None).kept
            means = kept.groupby("tags.rung")[f"metrics.{metrics.TEST_TOP1}"].mean() * 100
            shared[str(bench).rpartition("=")[2]] = f"{means['stack'] - means['L0']:.1f}"
    said = f"{shared['50']} points better than L0 with 50 labels, {shared['800']} with 800"
    assert f"it does not: the regression is {said} (three seeds" in text
    path = str(ROOT / "docs" / "data" / "few_labels_curve.db.xz")
    reading = ExperimentReader(path, exported_experiment(path))
    gain = {}
    for bench, runs in by_problem(reading.runs).groupby("tags.bench"):
        kept = BenchRuns(str(bench), runs, reading.history, None).kept
        means = kept.groupby("tags.rung")[f"metrics.{metrics.TEST_TOP1}"].mean() * 100
        if {"L2", "CE"} <= set(means.index):
            gain[str(bench).rpartition("=")[2]] = means["L2"] - means["CE"]
    assert f"With 50 labels it is {gain['50']:.0f} points above the labels alone." in text
    assert 0 < gain["800"] < 1
    assert f"the same recipe is {-gain['3200']:.1f} points below the labels alone" in text
