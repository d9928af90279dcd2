"""The evaluate verb: its options, the run that is meant, the data set, the report, the parent."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from analysis import tags
from pipeline.config import ConfigError, compose
from pipeline.evaluation.evaluate import _tracked
from pipeline.evaluation.model import find, on_data, stored
from pipeline.evaluation.report import Compared, Evaluation, Facts, artifacts, as_report
from pipeline.evaluation.request import Request, request
from pipeline.identity import splits
from pipeline.session import Session
from pipeline.stages.test_split import open_test
from pipeline.storage.run_store import RunFolder, Store
from pipeline.tracking.replay import replay
from tests.pipeline import records
from trainers import models
from trainers.errors import UserError
from trainers.measures import ClassRow
from trainers.models.weight_files import BadCheckpoint

KEYS = ("abcd00000001", "abcd00000002", "ffff00000001")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session over a store with two finished students and one that is not finished."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.session.signal.signal", lambda number, handler: None)
    session = Session.open(compose(["runtime.device=cpu"]), "evaluate", [])
    for seed, key in enumerate(KEYS):
        _student(session.store.run("distill", key), seed, finished=key != KEYS[2])
    return session


def _student(folder: RunFolder, seed: int, *, finished: bool) -> None:
    config = asdict(compose([f"seed={seed}"]))
    spec = records.spec(
        name=f"distill-L3-digits-s{seed}",
        config=config,
        tags={tags.STUDENT: "resnet8", tags.BENCH: "digits", tags.RUNG: "L3"},
        identity={"teachers": ["0123456789ab"]},
        data={"name": "digits", "digest": "d"},
    )
    folder.write_spec(spec)
    if finished:
        torch.manual_seed(seed)
        weights = models.build("resnet8", 10, 16, in_chans=1).state_dict()
        digest = folder.save_tensors("student", weights)
        folder.finish(records.result(key=folder.key, weights={"student": digest}))


# Options --------------------------------------------------------------------------------------


def test_run_and_split_are_taken_out_of_the_overrides() -> None:
    found, rest = request(["run=abcd", "data.root=x", "split=test", "runtime.device=cpu"])
    assert found == Request("abcd", "test", {"data.root", "runtime.device"})
    assert rest == ["data.root=x", "runtime.device=cpu"]
    assert request(["run=abcd"])[0].split == "val"  # which costs no reading of test


def test_a_file_takes_any_option() -> None:
    given = ["student.model=resnet20", "cfg=CE", "data.crop_pad=1"]
    assert request(["run=w.pt", *given])[1] == given


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["1 error:", "run: none given"]),
        (["run=abcd", "split=tset"], ["1 error:", "split=tset", "train, val, test"]),
        (["run=abcd", "cfg=L1"], ["1 error:", "cfg: a run is evaluated in its own", "data.root"]),
        (["run=abcd", "data.mean=[0.1]"], ["1 error:", "data.mean: a run is evaluated"]),
        (["run=abcd", "experiment=x"], ["1 error:", "of its run", "runtime.experiment=NAME"]),
        (
            ["split=x", "seed=1", "run=abcd", "runtime.devcie=cpu"],
            ["3 errors", "split=x", "seed: a run", "runtime.devcie: no such option"],
        ),
    ],
)
def test_all_errors_are_reported(overrides: list[str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        request(overrides)
    assert all(text in str(raised.value) for text in expected), raised.value


# Which run ------------------------------------------------------------------------------------


def test_a_name_is_enough_where_one_run_has_it_and_a_rung_lists_its_keys(session: Session) -> None:
    assert find("distill-L3-digits-s0", compose([]), session).key == "abcd00000001"
    with pytest.raises(ConfigError, match=r"run=L3: 3 runs match: abcd00000001 .*; give the key"):
        find("L3", compose([]), session)
    with pytest.raises(ConfigError, match=r"run=L9: no run of this id, key, name or rung in"):
        find("L9", compose([]), session)


def test_runs_of_one_name_are_listed_with_their_overrides(session: Session) -> None:
    for key, beta in zip(KEYS[:2], ("0.1", "0.2"), strict=True):
        folder = session.store.run("distill", key)
        given = f"cfg=L3 method.ib_beta={beta}"
        folder.write_spec(replace(folder.spec(), name="same", params={"overrides": given}))
    with pytest.raises(ConfigError, match=rf"{KEYS[0]} \(method.ib_beta=0.1\), {KEYS[1]} \(method"):
        find("same", compose([]), session)


def test_a_key_may_be_cut_where_it_stays_unique(session: Session) -> None:
    found = find("abcd00000001", compose([]), session)
    assert (found.name, found.model, found.teachers) == (
        "distill-L3-digits-s0",
        "resnet8",
        ("0123456789ab",),
    )
    net = found.network(torch.device("cpu"))
    assert not net.training
    assert all(torch.equal(value, found.weights[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcd", ["2 runs match", KEYS[0], KEYS[1], "distill-L3-digits-s1"]),
        ("9999", ["no run of this id, key", KEYS[0], "runtime.store"]),
        ("ffff", ["ffff00000001 is not finished"]),
        ("abc", ["nor is it an MLflow run id", "first 4 digits", ".safetensors"]),
        ("nowhere.safetensors", ["nowhere.safetensors: no such file"]),
    ],
)
def test_an_unknown_run_is_one_message(session: Session, text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        find(text, compose([]), session)
    assert "1 error:" in str(raised.value)
    assert all(part in str(raised.value) for part in expected), raised.value


def test_damaged_weights_of_a_run_are_named(session: Session) -> None:
    path = session.store.run("distill", KEYS[0]).tensors_path("student")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match=KEYS[0]):
        find(KEYS[0], compose([]), session)


def test_a_damaged_specification_names_its_run(session: Session) -> None:
    folder = session.store.run("distill", KEYS[0])
    spec = folder.read_json("spec")
    for wrong in ({"tags": {}}, {"config": {"data": 3, "numerics": {}}}, {"identity": None}):
        folder.write_json("spec", spec | wrong)
        with pytest.raises(UserError, match=KEYS[0]):
            stored(folder, session)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_nothing_in_a_file_is_executed(session: Session) -> None:
    Path("evil.pt").write_bytes(pickle.dumps({"state_dict": _Evil()}, protocol=2))
    with pytest.raises(BadCheckpoint, match=r"evil\.pt"):
        find("evil.pt", compose(["cfg=CE"]), session)
    assert not Path("executed").exists()


def test_readings_of_test_by_a_file_are_counted_by_its_content(session: Session) -> None:
    """A copy of a run's weights raises that run's count; other weights have one of their own."""
    config, data = compose(["cfg=CE"]), splits(compose([]).data)
    own = session.store.run("distill", KEYS[0])
    Path("copy.safetensors").write_bytes(own.tensors_path("student").read_bytes())
    assert find("copy.safetensors", config, session).folder == own
    weights = models.build("resnet8", 10, 16, in_chans=1).state_dict()
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.torch.save_file(weights, name)
    counts = [open_test(find(f"{n}.safetensors", config, session).folder, data)[1] for n in "aba"]
    assert counts == [1, 2, 3]
    assert own.test_reads() == 0


def test_the_same_tensors_in_another_form_start_no_new_count(session: Session) -> None:
    """Another format, wrapper, prefix, precision, metadata or batch counter of a copy."""
    own = session.store.run("distill", KEYS[0])
    weights = own.load_tensors("student")
    torch.save(weights, "a.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, "b.pth")
    safetensors.torch.save_file(weights, "c.safetensors", {"note": "x"})
    wide = {k: v.double() if v.is_floating_point() else v + 1 for k, v in weights.items()}
    torch.save(wide, "d.pt")
    torch.save(weights | {"fc.bias": weights["fc.bias"] + 1}, "e.pt")
    torch.save({f"net.{k}": v for k, v in torch.load("e.pt").items()}, "f.pt")
    config = compose(["cfg=CE"])
    folders = [
        find(name, config, session).folder for name in ("a.pt", "b.pth", "c.safetensors", "d.pt")
    ]
    assert set(folders) == {own}
    other = find("e.pt", config, session).folder
    assert other != own
    assert find("f.pt", config, session).folder == other


def test_a_damaged_run_next_to_it_does_not_matter(session: Session) -> None:
    (session.store.run("distill", KEYS[1]).path / "spec.json").write_text("{")
    (session.store.run("distill", KEYS[1]).path / "result.json").write_text("[]")
    assert find(KEYS[0], compose([]), session).key == KEYS[0]
    with pytest.raises(UserError, match=r"move its folder away \(mv .*\.damaged\)"):
        find(KEYS[1], compose([]), session)


def test_weights_that_do_not_fit_name_the_option_to_change(session: Session) -> None:
    torch.save(models.build("resnet20", 10, 16, in_chans=1).state_dict(), "w.pt")
    with pytest.raises(BadCheckpoint, match=r"student\.model"):
        find("w.pt", compose(["cfg=CE"]), session)


# On which data --------------------------------------------------------------------------------


def test_a_data_set_of_the_same_shape_keeps_the_normalisation_of_the_run(
    session: Session,
) -> None:
    subject = find(KEYS[0], compose([]), session)
    subject = replace(subject, data=replace(subject.data, mean=[0.3], train_limit=50))
    other = compose(["bench=digits_all", "data.root=elsewhere", "data.val_fraction=0.3"]).data
    chosen = on_data(subject, other, {"data.root", "runtime.device"}).data
    assert (chosen.root, chosen.val_fraction, chosen.train_limit) == ("elsewhere", 0.1, 50)
    whole = on_data(subject, other, {"data"}).data
    assert (whole.val_fraction, whole.train_limit, whole.mean) == (0.3, None, [0.3])


@pytest.mark.parametrize("override", ["data=fashion_mnist", "data.image_size=32"])
def test_a_data_set_of_another_shape_is_one_message(session: Session, override: str) -> None:
    subject = find(KEYS[0], compose([]), session)
    with pytest.raises(ConfigError) as raised:
        on_data(subject, compose([override]).data, {override.partition("=")[0]})
    assert "1 error:" in str(raised.value)
    assert "image_size 16" in str(raised.value)


# The report -----------------------------------------------------------------------------------


def _found(classes: int) -> tuple[Evaluation, Facts]:
    rows = tuple(ClassRow(4, 1 - c / classes, 0.5) for c in range(classes - 1))
    numbers = {
        "top1": 0.5,
        "nll": 1.0,
        "ece": 0.1,
        "images": 4e6,
        "parameters": 6e7,
        "macs": 1.2e10,
        "images_per_second": 1e5,
    }
    teachers = (Compared(0, "0123456789ab", "finetune-" + "x" * 90, 0.9, 0.25), Compared(1, "ba98"))
    confusion = [[0] * classes for _ in range(classes)]
    found = Evaluation(numbers, teachers, (*rows, ClassRow(0, None, None)), confusion)
    facts = Facts(
        "distill-L3-" + "n" * 80,
        "abcd00000001",
        "resnet8",
        "digits",
        "d",
        False,
        "test",
        "cpu",
        2,
        tuple(f"class {c} " + "y" * 90 for c in range(classes)),
    )
    return found, facts


@pytest.mark.parametrize("classes", [3, 20, 21, 300])
def test_the_report_fits_100_columns_and_names_what_is_missing(classes: int) -> None:
    found, facts = _found(classes)
    text = as_report(found, facts)
    assert max(map(len, text.splitlines())) <= 100
    assert "Teacher 1 (key ba98) is not in the store" in text
    assert "another data set" in text
    assert ("worst of" in text) == (classes > 20)


def test_the_worst_classes_are_shown_and_those_without_images_are_not() -> None:
    found, facts = _found(300)
    text = as_report(found, facts)
    shown = [number for number in range(300) if f"class {number} " in text]
    assert shown == list(range(289, 299))


def test_files_hold_everything_and_missing_is_null() -> None:
    found, facts = _found(21)
    written = artifacts(found, facts)
    body = json.loads(written.texts["evaluation.json"], parse_constant=pytest.fail)
    assert body["classes"][20]["top1"] is None
    assert body["teachers"][1]["agreement"] is None
    assert len(written.texts["per_class.csv"].splitlines()) == 1 + 21
    assert len(written.texts["confusion.csv"].splitlines()) == 1 + 21
    assert set(found.flat()) == {*found.numbers, "teacher0/agreement", "teacher0/kl"}


def test_an_empty_store_is_reported(tmp_path: Path, session: Session) -> None:
    session.store = Store(tmp_path / "empty")
    with pytest.raises(ConfigError, match="it holds no run"):
        find("abcd", compose([]), session)


# The parent run -------------------------------------------------------------------------------


def _send(session: Session, experiment: str) -> str:
    """A finished student of the store in an experiment."""
    folder = session.store.run("distill", KEYS[0])
    spec = folder.spec()
    run_tags = {
        tags.STAGE: "distill",
        tags.RUN_KEY: folder.key,
        tags.RUNG: "L3",
        tags.SEED: "0",
        tags.TEACHERS: "resnet20",
    }
    folder.write_spec(replace(spec, folder="f0", tags=spec.tags | run_tags))
    return replay(folder, replace(session.target, experiment=experiment), log_model=False)


def _experiments(session: Session) -> set[str]:
    return {experiment.name for experiment in session.target.client().search_experiments()}


def test_a_key_is_evaluated_in_the_experiment_of_its_run(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    of_study = _send(session, "asib/ladder")
    subject = find(KEYS[0], compose([]), session)
    assert _tracked(subject, session).run_id == of_study
    assert _experiments(session) == {"Default", "asib/ladder"}
    assert "in experiment asib/ladder, where the run is (runtime." in capsys.readouterr().out
    _send(session, "another")  # reused there too, as in asib/ladder: the first by name
    assert _tracked(subject, session).run_id != of_study
    output = capsys.readouterr().out
    assert "in experiment another, where the run is; it is in asib/ladder too" in output


def test_a_chosen_experiment_gets_a_copy_of_the_run(session: Session) -> None:
    of_study = _send(session, "asib/ladder")
    subject = find(KEYS[0], compose([]), session)
    given = replace(session, runtime=replace(session.runtime, experiment="asib", log_model=False))
    named = replace(
        session,
        runtime=replace(session.runtime, log_model=False),
        target=replace(session.target, experiment="of the environment"),
    )
    assert of_study not in {_tracked(subject, one).run_id for one in (given, named)}
    assert _experiments(session) == {"Default", "asib", "asib/ladder", "of the environment"}
