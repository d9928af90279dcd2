"""An exported study is read back as the store that it came from."""

import lzma
import math
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from analysis import tags
from analysis.runs import export, load_history, load_runs
from analysis.stores.archive import SUFFIX
from trainers import metrics

NAME = "given away"
KEPT = [metrics.VAL_TOP1, metrics.VAL_LOSS]


@pytest.fixture(scope="module")
def ids(store) -> list[str]:
    curve = [(0, 0.1), (1, 0.2), (1, 0.25), (2, 0.3)]
    odd = {metrics.VAL_LOSS: [(0, math.inf), (1, -math.inf), (2, math.nan)]}
    launch = store.run(NAME, "launch")
    parent = {"mlflow.parentRunId": launch, "mlflow.user": "someone"}
    return [
        store.distill(
            NAME, "CE", 0, 0.5, metrics={metrics.VAL_TOP1: curve, metrics.LR: [(0, 1.0)]}
        ),
        store.distill(NAME, "KD", 0, math.nan, metrics=odd, tags=parent),
        store.distill(NAME, "L3", 1, 0.9, status="FAILED", tags={tags.ERROR: "oh"}),
    ]


@pytest.fixture(scope="module")
def file(store, ids, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("export") / f"study{SUFFIX}"
    path.write_bytes(export(store.uri, NAME, ids, KEPT))
    return str(path)


def test_runs_are_those_of_the_store(store, ids, file) -> None:
    there = load_runs(store.uri, NAME)
    there = there[there["run_id"].isin(ids)].reset_index(drop=True)
    found = load_runs(file, NAME)
    same = [name for name in there if name != "parent_id" and there[name].notna().any()]
    pd.testing.assert_frame_equal(found[same], there[same])
    assert found["parent_id"].isna().all()  # the launch is not among them
    assert there["parent_id"].notna().any()


def test_histories_are_those_that_were_requested(store, ids, file) -> None:
    columns = ["run_id", "metric", "step", "value"]
    found, there = (load_history(uri, ids, [*KEPT, metrics.LR]) for uri in (file, store.uri))
    there = there[there["metric"] != metrics.LR]
    assert len(found) == 6
    pd.testing.assert_frame_equal(found[columns], there[columns].reset_index(drop=True))


def test_nothing_of_the_machine_goes_with_it(file) -> None:
    with open(file, "rb") as packed:
        text = lzma.decompress(packed.read())
    assert b"mlflow.user" not in text
    assert b"someone" not in text


def test_no_place_of_the_machine_goes_with_it(store) -> None:
    overrides = "cfg=CE runtime.store=/home/someone/store data.root=/data seed=0"
    note = f"Again: `python -m pipeline distill {overrides}`"
    run = store.distill(
        "places",
        "CE",
        0,
        0.5,
        tags={"mlflow.note.content": note},
        params={
            "overrides": overrides,
            "runtime.store": "/home/someone/store",
            "data.root": "/data",
        },
    )
    text = lzma.decompress(export(store.uri, "places", [run], KEPT))
    assert b"someone" not in text
    assert b"/data" not in text
    assert text.count(b"cfg=CE seed=0") == 2


def test_it_can_be_exported_again(file, ids) -> None:
    assert lzma.decompress(export(file, NAME, ids, KEPT))


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_file_is_one_message(file, tmp_path, damage: str) -> None:
    whole = bytearray(Path(file).read_bytes())
    whole[len(whole) // 2] ^= 1
    data = {"cut": bytes(whole[: len(whole) // 2]), "flipped": bytes(whole), "text": b"hello"}
    path = tmp_path / f"bad{SUFFIX}"
    path.write_bytes(data[damage])
    with pytest.raises(ValueError, match=f"bad{SUFFIX}: damaged, or not made by export"):
        load_runs(str(path), NAME)


def test_another_database_is_refused(tmp_path) -> None:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE metrics (a)")
    path = tmp_path / f"other{SUFFIX}"
    path.write_bytes(lzma.compress(base.serialize()))
    with pytest.raises(ValueError, match="not made by export: it has no experiments"):
        load_runs(str(path), NAME)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        load_runs(str(tmp_path / f"no{SUFFIX}"), NAME)


def test_an_experiment_that_is_not_there(file) -> None:
    with pytest.raises(ValueError, match="no experiment 'other'"):
        load_runs(file, "other")
