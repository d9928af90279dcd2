"""Reports of a study: every trial, what the values allow, the next commands."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from pipeline.cli.console import out
from pipeline.tracking.target import TrackingTarget
from sweeps import summary
from sweeps.study import Study
from sweeps.tracking import VALUES
from sweeps.trials import TrialStore

Make = Callable[..., TrialStore]
BETAS = {"method.ib_beta": [0.0, 1e-3, 1e-2]}


class Small(Study):
    """A study whose key needs no data set."""

    key = "small-0"  # type: ignore[assignment]


@pytest.fixture
def study_with(tmp_path: Path) -> Make:
    """A board whose first trials have these values, one a seed."""

    def make(values: Sequence[Sequence[float]], name: str = "small", **more: Any) -> TrialStore:
        seeds = tuple(range(len(values[0]) if values else 1))
        study = Small(name, ["cfg=L2"], seeds=seeds, **more)
        trial_store = TrialStore(study, tmp_path, heartbeat_s=0.1, expiry_s=0.5)
        trial_store.enqueue()
        for of_seeds in values:
            claimed = trial_store.take(study.wanted)
            assert claimed is not None
            kept = {str(seed): {"val": v, "seconds": 1.0} for seed, v in enumerate(of_seeds)}
            claimed.trial.set_user_attr(VALUES, kept)
            claimed.part.tell(claimed.trial, sum(of_seeds) / len(of_seeds))
            claimed.lease.release()
        return trial_store

    return make


URI = "sqlite:////x/mlflow.db"


def lines(trial_store: TrialStore, experiment: str = "asib/small") -> dict[str, str]:
    """The final lines, by their first words."""
    place: Any = TrackingTarget(URI, experiment, None, "sweeps", trial_store.folder)
    output = summary.next_commands(trial_store, (), place)
    return {line[:12].strip().rstrip(":"): line[14:] for line in output}


def printed(table: Table, capsys: pytest.CaptureFixture[str]) -> list[str]:
    out.print(table)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(("trials", "more"), [(20, None), (23, "… and 3 more that finished")])
def test_the_final_table_has_every_trial_or_counts_the_rest(
    study_with: Make, capsys: pytest.CaptureFixture[str], trials: int, more: str | None
) -> None:
    trial_store = study_with([[0.5]] * trials, space={"overlap": list(range(trials))})
    title, heads, *rows = printed(summary.results(trial_store), capsys)
    assert title == f"study small-0, trials: {trials} finished"
    assert "what varies" in heads
    assert [row.split()[0] for row in rows[:20]] == [str(k) for k in range(20)]
    assert rows[20:] == ([] if more is None else [more])


def test_a_trial_that_ended_with_the_last_job_is_printed(
    study_with: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trial_store = study_with([], space=BETAS)
    events = summary.Events(trial_store)
    claimed = trial_store.take(3)
    assert claimed is not None
    events.look()
    claimed.part.tell(claimed.trial, 0.5)
    claimed.lease.release()
    events.poll()  # within the second
    events.look()
    events.look()  # nothing is printed twice
    begun, ended = capsys.readouterr().out.splitlines()
    assert "running" in begun
    assert ended.endswith("val 50.00 %")


def test_without_a_finished_trial_there_is_no_header_and_no_report(
    study_with: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trial_store = study_with([], space={"cfg": ["CE", "KD"]})
    (title,) = printed(summary.results(trial_store), capsys)
    assert title == "study small-0, trials: 2 waiting"
    assert list(lines(trial_store)) == ["again", "look with", "experiment"]


@pytest.mark.parametrize(("space", "order"), [({"cfg": ["CE", "KD", "L0"]}, "012"), (BETAS, "120")])
def test_rungs_keep_their_order_and_tuned_trials_are_sorted_by_value(
    study_with: Make, capsys: pytest.CaptureFixture[str], space: dict[str, Any], order: str
) -> None:
    _, _, *rows = printed(summary.results(study_with([[0.5], [0.9], [0.7]], space=space)), capsys)
    assert [row.split()[0] for row in rows] == list(order)


@pytest.mark.parametrize(
    ("more", "selects"),
    [
        ({"space": {"cfg": ["CE", "KD"]}}, False),
        ({"space": {"overlap": [0, 50], "cfg": ["CE", "KD"]}}, False),
        ({"rows": {"a": ["method.tau=1"], "b": []}}, False),
        ({"space": BETAS}, True),
        ({"space": {"optim.lr": [0.1, 0.2]}, "rows": {"a": []}}, True),
        ({"rows": {"a": [], "b": []}, "sampler": "tpe", "trials": 2}, True),
    ],
)
def test_a_study_selects_where_it_tunes(more: dict[str, Any], selects: bool) -> None:
    assert Study("x", [], **more).selects == selects


def test_compared_configurations_have_a_report_and_no_best(study_with: Make) -> None:
    output = lines(study_with([[0.5], [0.9]], space={"cfg": ["CE", "KD"]}))
    assert output["the report"] == "python -m pipeline analyze experiment=asib/small what=study"
    assert "the best" not in output
    assert "note" not in output


def test_the_best_is_at_the_seeds_of_the_study(study_with: Make) -> None:
    output = lines(study_with([[0.5, 0.6], [0.9, 0.9], [0.7, 0.7]], space=BETAS))
    best = "python -m pipeline distill -m cfg=L2 method.ib_beta=0.001 seed=0,1"
    assert output["the best"] == best
    assert output["the report"].endswith("analyze experiment=asib/small what=beta")


@pytest.mark.parametrize(
    ("name", "space", "what"),
    [
        ("mine", {"overlap": [0, 50]}, " what=overlap"),
        ("methods", {"cfg": ["CE"]}, " what=methods"),
        ("ladder", {"cfg": ["CE"]}, " what=ladder"),
        ("mine", {"method.ib_beta": [0.0, 0.1]}, " what=beta"),
        ("joint", {"method.ib_beta": [0.0, 0.1], "optim.lr": [0.1]}, " what=study"),
    ],
)
def test_the_report_is_of_the_topic_of_the_study(
    study_with: Make, name: str, space: dict[str, Any], what: str
) -> None:
    trial_store = study_with([[0.5]], name, space=space)
    assert lines(trial_store)["the report"].endswith(what)
    assert "experiment=" not in lines(trial_store, "#7")["the report"]


def test_ties_with_the_best_are_printed_and_the_rule_for_beta(study_with: Make) -> None:
    output = lines(study_with([[0.9, 0.9], [0.9, 0.9], [0.5, 0.6]], space=BETAS))
    assert output["tied with it"] == "trial 1"
    assert "one standard error" in output["which to use"]


def test_without_a_tie_or_beta_neither_is_printed(study_with: Make) -> None:
    output = lines(study_with([[0.9, 0.9], [0.8, 0.9]], space={"optim.lr": [0.1, 0.2]}))
    assert "the best" in output
    assert not {"tied with it", "which to use"} & output.keys()


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([[0.5, 0.6]] * 3, "all 3 trials have the same validation value: validation does not"),
        ([[0.5], [0.6], [0.5]], "one seed a trial: the variation between seeds is not known"),
        (
            [[0.80, 0.90, 0.85], [0.50, 0.60, 0.55], [0.79, 0.91, 0.84]],
            "not significantly lower, paired by seed (95 %): 1 of the other 2 trials (2)",
        ),
        ([[0.80, 0.90, 0.85], [0.50, 0.60, 0.55], [0.40, 0.50, 0.46]], None),
    ],
)
def test_notes_on_what_the_values_allow(
    study_with: Make, values: list[list[float]], note: str | None
) -> None:
    output = lines(study_with(values, space=BETAS))
    assert ("note" not in output) if note is None else output["note"].startswith(note)
    assert ("the best" in output) == (note is None or not note.startswith("all"))


def test_a_dashboard_is_named_where_it_is_installed(
    study_with: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial_store = study_with([[0.5]], space=BETAS)
    monkeypatch.setattr(summary, "which", lambda _: None)
    assert lines(trial_store)["look with"] == f"mlflow ui --backend-store-uri {URI}"
    monkeypatch.setattr(summary, "which", lambda name: f"/bin/{name}")
    assert f"optuna-dashboard {trial_store.folder}/journal.log" in lines(trial_store)["look with"]


def test_a_trial_that_its_worker_released_is_stopped(
    study_with: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trial_store = study_with([[0.5]], space=BETAS)
    claimed = trial_store.take(3)
    assert claimed is not None
    assert summary.counted(trial_store) == "trials: 1 finished, 1 running, 1 waiting"
    claimed.lease.release()
    assert summary.counted(trial_store) == "trials: 1 finished, 1 stopped, 1 waiting"
    *_, last = printed(summary.live(trial_store), capsys)
    assert last.split()[:2] == ["1", "stopped"]
