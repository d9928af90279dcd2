"""The plan of a command: each stage once, its state, and times of finished runs of its kind."""

from pathlib import Path
from typing import Any

import pytest

from analysis import tags
from pipeline.config import Config, ConfigError, compose
from pipeline.identity import identity, run_key, splits
from pipeline.stages.matched_budget import resolved, standards
from pipeline.stages.plan import (
    duration,
    planned_banks,
    planned_students,
    planned_teachers,
    show,
    time_of,
)
from pipeline.stages.view_bank import bank_key
from pipeline.storage.run_store import Store
from tests.pipeline import records
from trainers import metrics
from trainers.view_bank import bank_bytes

SMALL = ["bench=digits_all", "data.train_limit=100"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def finish(
    store: Store, stage: str, key: str, what: str, seconds: float, bank: float = 0.0
) -> None:
    folder = store.run(stage, key)
    tag = tags.STUDENT if stage == "finetune" else tags.RUNG
    made_by = identity(stage, rung("L3" if stage == "finetune" else what))
    folder.write_spec(records.spec(tags={tags.BENCH: "digits_all", tag: what}, identity=made_by))
    values = {metrics.RUN_SECONDS: seconds, metrics.BANK_SECONDS: bank}
    folder.finish(records.result(metrics=values))


def rung(cfg: str, *more: str) -> Config:
    return compose([f"cfg={cfg}", *SMALL, *more])


def test_teachers_and_their_banks_come_first_and_each_stage_once(store: Store) -> None:
    found = planned_students([rung("L3"), rung("KD"), rung("CE"), rung("L3")], store)
    assert [stage.name for stage in found] == [
        "finetune-resnet20-digits_all-s0",
        "finetune-resnet20-digits_all-s1",
        "bank-resnet20-digits_all-s0",
        "bank-resnet20-digits_all-s1",
        "distill-L3-digits_all-s0",
        "distill-KD-digits_all-s0",
        "distill-CE-digits_all-s0",
    ]
    assert {stage.state for stage in found} == {"new"}
    assert all(stage.seconds is None for stage in found)
    assert found[4].key == run_key("distill", rung("L3"))


def test_a_rung_without_teachers_plans_none(store: Store) -> None:
    assert [s.name for s in planned_students([rung("CE")], store)] == ["distill-CE-digits_all-s0"]


def test_times_are_the_median_of_finished_runs_of_the_kind(store: Store) -> None:
    for number, seconds in enumerate((10.0, 30.0, 20.0)):
        finish(store, "distill", f"aaaa{number}", "L3", seconds)
    finish(store, "distill", "bbbb", "CE", 99.0)
    (*_, l3) = planned_students([rung("L3")], store)
    assert l3.seconds == pytest.approx(20.0)


def test_what_is_finished_and_what_resumes_is_shown(store: Store) -> None:
    key = run_key("finetune", rung("L3"), teacher=0)
    finish(store, "finetune", key, "resnet20", 40.0)
    second = store.run("finetune", run_key("finetune", rung("L3"), teacher=1))
    history: list[dict[str, Any]] = [{"metrics": {metrics.EPOCH_SECONDS: 5.0}}] * 3
    second.commit({}, history, token="a")
    found = planned_teachers(rung("L3"), (0, 1), store)
    assert [s.state for s in found] == ["finished", "to resume after epoch 3"]
    assert [s.seconds for s in found] == pytest.approx([0.0, 25.0])


def test_banks_are_planned_with_the_time_of_others_of_their_teacher(store: Store) -> None:
    parts = {"parts": [], "val": "0"}
    body = parts | {"name": "bank-resnet20-digits_all-s0", "seconds": 8.0}
    store.run("bank", bank_key(rung("KD"), 0)).write_json("bank", body)
    store.run("bank", "aaaa").write_json("bank", body | {"seconds": 10.0})
    store.run("bank", "bbbb").write_json("bank", parts | {"seconds": 1e9})  # without a name
    *_, there, absent = planned_banks(rung("KD"), (0, 1), store)
    assert (there.state, there.seconds) == ("finished", 0.0)
    assert (absent.state, absent.seconds) == ("new", 9.0)


def test_the_time_of_a_student_is_without_its_banks(store: Store) -> None:
    finish(store, "distill", "aaaa", "KD", 30.0, bank=4.0)
    assert planned_students([rung("KD")], store)[-1].seconds == pytest.approx(26.0)


def test_times_grow_with_the_budget_and_are_not_taken_from_other_data(store: Store) -> None:
    finish(store, "distill", "aaaa", "CE", 40.0)
    epochs = rung("CE").budget.student_epochs
    longer = rung("CE", f"budget.student_epochs={10 * epochs}")
    other = compose(["bench=digits_all", "cfg=CE", "data.train_limit=200"])
    assert planned_students([longer], store)[-1].seconds == pytest.approx(400.0)
    assert planned_students([other], store)[-1].seconds is None


def test_the_table_sums_up_what_is_known(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    finish(store, "distill", "aaaa", "CE", 4000.0)
    show(planned_students([rung("CE"), rung("KD")], store))
    text = capsys.readouterr().out
    assert "distill-CE-digits_all-s0" in text
    assert "0 finished, 6 to run: 67 min, and 5 of a kind that has not run here yet" in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_the_teachers_know_is_shown_where_a_run_has_measured_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def finished(cfg: str, key: str, history: list[dict[str, float]], **values: float) -> None:
        config = rung(cfg)
        known = {tags.BENCH: "digits", tags.RUNG: cfg}
        store.run("distill", key).write_spec(
            records.spec(tags=known, identity=identity("distill", config))
        )
        entries = [{"metrics": epoch} for epoch in history]
        done = {metrics.RUN_SECONDS: 10.0} | {metrics.BEST_VAL_TOP1: values["val"]}
        store.run("distill", key).finish(records.result(metrics=done, history=entries))

    known = {metrics.ROOM_BEST_TEACHER: 0.5, metrics.ROOM_AVERAGE: 0.6, metrics.ROOM_STACK: 0.8}
    finished("L2", "aaaa", [known, {metrics.SYNERGY_RESTORED: 0.7}, {}], val=0.7)
    both = [rung("L3"), rung("KD"), rung("CE")]
    show(planned_students(both, store))
    text = " ".join(capsys.readouterr().out.split())
    line = "on validation: best teacher 50.0%, teachers' average 60.0%, stack 80.0%, fusion 70.0%"
    assert text.count(line) == 1
    assert f"{line}; labels alone: not known before CE has run" in text
    finished("CE", "bbbb", [{}], val=0.65)
    show(planned_students(both, store))
    text = " ".join(capsys.readouterr().out.split())
    assert f"{line}; labels alone 65.0%: room of +15.0 points" in text
    for other in (["teacher.0.seed=7"], ["data.train_limit=120"]):
        show(planned_students([rung("KD", *other)], store))
    show(planned_students([rung("CE")], store))
    assert "on validation" not in capsys.readouterr().out


def test_runs_of_one_name_are_distinguished_by_that_in_which_those_that_need_them_agree(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lr = "optim.lr=1e-2"
    configs = [rung("KD"), rung("KD", lr), rung("CE"), rung("CE", lr)]
    settings = [(("row", r), ("lr", v)) for r in ("KD", "CE") for v in ("own", "1e-2")]
    again = (("row", "x"), ("lr", "own"))
    found = planned_students([*configs, rung("CE")], store, [*settings, again])
    of_students = [stage.setting for stage in found[-4:]]
    assert of_students == [*settings[:2], (("lr", "own"),), settings[3]]
    assert {stage.setting for stage in found[:-4]} == {(("row", "KD"),)}
    show(found)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if found[-1].key in line]
    assert line.split() == [
        "distill-CE-digits_all-s0",
        found[-1].key,
        "new",
        "row=CE",
        "lr=1e-2",
        "?",
    ]
    show(planned_students(configs[::2], store, settings[::2]))
    show(planned_students(configs, store))
    assert "what varies" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lots", "workers", "expected"),
    [
        ([60.0] * 9, 1, "9 min"),
        ([60.0] * 9, 2, "9 min of training, about 4 min with 2 workers"),
        ([540.0], 2, "9 min of training, about 9 min with 2 workers"),
        ([240.0, 60.0, 60.0], 3, "6 min of training, about 4 min with 3 workers"),
    ],
)
def test_workers_share_trials_and_no_trial(lots: list[float], workers: int, expected: str) -> None:
    assert time_of(lots, workers) == expected


def test_stages_of_one_setting_are_one_workers(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, "distill", "aaaa", "CE", 120.0)
    seeds = [rung("CE", f"seed={seed}") for seed in range(3)]
    show(planned_students(seeds, store, [(("cfg", "CE"),)] * 3), workers=2)
    show(planned_students(seeds, store), workers=2)
    together, apart = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("0 finished")
    )
    assert together.endswith("6 min of training, about 6 min with 2 workers")
    assert apart.endswith("6 min of training, about 3 min with 2 workers")


def test_ce_matched_waits_for_the_runs_whose_time_it_takes(store: Store) -> None:
    config = rung("CE_matched")
    found = planned_students([*standards(config, ["cfg=CE_matched", *SMALL]), config], store)
    assert [s.name for s in found][-3:] == [
        "distill-L4-digits_all-s0",
        "distill-CE-digits_all-s0",
        "distill-CE_matched-digits_all-s0",
    ]
    assert found[-1].key is None
    assert found[-1].state == "after L4 and CE"
    assert len(planned_students([config, config, rung("CE_matched", "optim.lr=1e-2")], store)) == 2


@pytest.mark.parametrize(("rung_s", "epochs"), [(10.0, 40), (25.0, 100), (0.01, 1), (10.13, 41)])
def test_matched_epochs_are_those_that_fit_into_the_time(rung_s: float, epochs: int) -> None:
    config = rung("CE_matched")
    found = resolved(config, rung_s, 10.0)
    assert found.budget.student_epochs == epochs
    assert found.budget.matched_to is None
    assert found.budget.matched_with == []
    assert config.budget.matched_to == "L4"


def test_standards_keep_the_given_overrides() -> None:
    overrides = ["cfg=CE_matched", "budget.matched_to=L1", "seed=3", *SMALL]
    one, control = standards(compose(overrides), overrides)
    assert (one.cfg, control.cfg, one.seed, control.seed) == ("L1", "CE", 3, 3)
    assert one.budget.matched_to is control.budget.matched_to is None


def test_the_rung_whose_time_is_given_may_have_a_recipe_of_its_own() -> None:
    own = "budget.matched_with=['optim.lr=4e-3','method.ce_alpha=0.1']"
    overrides = ["cfg=CE_matched", "budget.matched_to=L1", own, "optim.lr=8e-3", *SMALL]
    one, control = standards(compose(overrides), overrides)
    assert (one.optim.lr, control.optim.lr) == (4e-3, 8e-3)
    assert one.method.ce_alpha == 0.1
    wrong = ["cfg=CE_matched", "budget.matched_with=['optim.rl=4']", *SMALL]
    config = compose(wrong)
    with pytest.raises(ConfigError, match=r"optim\.rl: no such option"):
        standards(config, wrong)


def test_durations_read_well() -> None:
    assert [duration(s) for s in (None, 0, 45, 99, 720, 5999, 12240)] == [
        "?",
        "0 s",
        "45 s",
        "99 s",
        "12 min",
        "100 min",
        "3.4 h",
    ]


def test_the_disk_that_the_missing_banks_need_is_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    show(planned_students([rung("KD"), rung("L3")], store))
    images, config = 100 * 4 + 11, rung("KD")  # 4 views, and the validation images
    assert len(splits(config.data).val.labels) == 11
    assert 2 * bank_bytes(images, 10, 64) == 121_656
    assert "view banks to make: 0.1 MB of disk" in capsys.readouterr().out
    for number in (0, 1):
        body = {"parts": [], "val": "0", "seconds": 1.0}
        store.run("bank", bank_key(config, number)).write_json("bank", body)
    show(planned_students([rung("KD")], store))
    assert "to make" not in capsys.readouterr().out
