"""What is read back is what was logged, for every kind of store."""

import math
import threading

import numpy as np
import pandas as pd
import pytest

from analysis import tags
from analysis.runs import HISTORY_COLUMNS, RUN_COLUMNS, load_history, load_runs, select
from analysis.stores import mlflow_client as module
from tests.analysis.frames import distill, runs
from trainers import metrics

NAME = "reading"


@pytest.fixture(scope="module")
def ids(store) -> dict[str, str]:
    """Runs of one experiment by a short name."""
    found = {
        "good": store.distill(
            NAME,
            "CE",
            0,
            0.5,
            params={"method.ib_beta": "0.001"},
            metrics={metrics.VAL_TOP1: [(0, 0.1), (1, 0.2), (1, 0.25), (2, 0.3)], metrics.LR: 0.01},
        ),
        "odd": store.distill(
            NAME, "KD", 0, math.nan, metrics={metrics.VAL_LOSS: [(0, math.inf), (1, -math.inf)]}
        ),
        "failed": store.distill(NAME, "L3", 1, 0.9, status="FAILED", tags={tags.ERROR: "oh"}),
        "killed": store.distill(NAME, "L3", 2, 0.9, status="KILLED"),
        "running": store.distill(NAME, "L3", 3, None, status="RUNNING"),
        "no value": store.distill(NAME, "L3", 4, None),
        "infinite": store.distill(NAME, "L3", 5, math.inf),
        "replayed": store.distill(NAME, "L0", 0, 0.6, tags={tags.REUSED: "true"}),
        "original": store.distill(NAME, "L0", 0, 0.6),
        "first": store.distill(NAME, "L1", 0, 0.7),
        "second": store.distill(NAME, "L1", 0, 0.7),
        "replayed alone": store.distill(NAME, "L2", 0, 0.7, tags={tags.REUSED: "true"}),
        "failed original": store.distill(NAME, "L2", 0, 0.7, status="FAILED"),
        "other bench": store.distill(NAME, "CE", 0, 0.8, tags={tags.BENCH: "other"}),
    }
    found["teacher"] = store.run(
        NAME, "finetune", tags={tags.STAGE: "finetune"}, metrics={metrics.VAL_TOP1: 0.9}
    )
    found["deleted"] = store.distill(NAME, "CE", 8, 0.5)
    store.client.delete_run(found["deleted"])
    return found


@pytest.fixture(scope="module")
def frame(store, ids) -> pd.DataFrame:
    return load_runs(store.uri, NAME)


@pytest.fixture(scope="module")
def server(store, ids):
    """The tracking server on loopback, in this process, over the same store."""
    from mlflow.server import app, handlers
    from werkzeug.serving import make_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "_tracking_store", store.client._tracking_client.store)
        http = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_one_row_a_run_with_everything_that_was_logged(frame, ids):
    assert list(frame.columns[: len(RUN_COLUMNS)]) == list(RUN_COLUMNS)
    assert set(frame["run_id"]) == set(ids.values()) - {ids["deleted"]}
    row = frame.set_index("run_id").loc[ids["good"]]
    assert row["name"] == "distill-CE-toy-s0"
    assert (row["status"], row["experiment"], row["parent_id"]) == ("FINISHED", NAME, "launch")
    assert (row["end_time"] - row["start_time"]).total_seconds() == 0.5
    assert str(row["start_time"].tz) == "UTC"
    assert row["params.method.ib_beta"] == "0.001"
    assert row["tags.rung"] == "CE"
    assert row["metrics.val/top1"] == 0.3
    assert not [name for name in frame if name.startswith("tags.mlflow.")]


def test_what_was_not_logged_is_missing(frame, ids):
    by_id = frame.set_index("run_id")
    assert math.isnan(by_id.loc[ids["no value"], "metrics.test/top1"])
    assert math.isnan(by_id.loc[ids["odd"], "metrics.test/top1"])
    assert pd.isna(by_id.loc[ids["odd"], "params.method.ib_beta"])
    assert pd.isna(by_id.loc[ids["running"], "end_time"])
    assert pd.isna(by_id.loc[ids["teacher"], "parent_id"])


def test_infinity_comes_back_as_infinity(frame, store, ids):
    assert frame.set_index("run_id").loc[ids["infinite"], "metrics.test/top1"] == math.inf
    history = load_history(store.uri, [ids["odd"]], [metrics.VAL_LOSS])
    assert history["value"].tolist() == [math.inf, -math.inf]


def test_all_pages_are_read(server, frame, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    pd.testing.assert_frame_equal(load_runs(server, NAME), frame)


def test_any_other_store_is_read_by_the_client(store, frame, ids):
    asked = sorted(ids.values()), [metrics.TEST_TOP1, metrics.VAL_TOP1]
    rows = module.ClientStore(store.uri)
    found = rows.runs(frame.attrs["experiment_id"])
    assert [info.run_id for info in found.infos] == frame["run_id"].tolist()
    values = [value for points in rows.points(*asked) for value in points.values]
    # Both values of the step that was logged twice are kept.
    assert len(values) == len(load_history(store.uri, *asked)) + 1


def test_unknown_experiment_is_named_with_the_nearest_one(store, ids):
    with pytest.raises(ValueError, match=r"'raeding'.*mean reading.*Default.*reading"):
        load_runs(store.uri, "raeding")


def test_deleted_experiment_is_reported_as_deleted(store):
    store.client.delete_experiment(store.client.create_experiment("gone"))
    with pytest.raises(ValueError, match=r"'gone'.*deleted"):
        load_runs(store.uri, "gone")


def test_absent_store_is_an_error_and_is_not_created(tmp_path):
    with pytest.raises(ValueError, match=r"no tracking store.*absent\.db"):
        load_runs(f"sqlite:///{tmp_path / 'absent.db'}", NAME)
    assert not list(tmp_path.iterdir())


def test_experiment_without_runs_is_an_empty_frame(store):
    store.client.create_experiment("bare")
    assert list(load_runs(store.uri, "bare").columns) == list(RUN_COLUMNS)
    assert select(load_runs(store.uri, "bare"), stage="distill").kept.empty


def test_history_is_tidy_and_keeps_the_last_value_of_a_step(store, ids):
    found = load_history(store.uri, [ids["odd"], ids["good"]], [metrics.VAL_TOP1, metrics.LR])
    assert list(found.columns) == list(HISTORY_COLUMNS)
    assert found[["metric", "step", "value"]].to_numpy().tolist() == [
        [metrics.LR, 0, 0.01],
        [metrics.VAL_TOP1, 0, 0.1],
        [metrics.VAL_TOP1, 1, 0.25],
        [metrics.VAL_TOP1, 2, 0.3],
    ]
    assert found["run_id"].unique().tolist() == [ids["good"]]
    assert np.issubdtype(found["step"].dtype, np.integer)


def test_later_timestamp_wins_over_order_of_logging(store):
    run_id = store.run("rewritten", "late")
    store.client.log_metric(run_id, metrics.LR, 2.0, timestamp=2000, step=0)
    store.client.log_metric(run_id, metrics.LR, 3.0, timestamp=1000, step=0)
    assert load_history(store.uri, [run_id], [metrics.LR])["value"].tolist() == [2.0]


def test_history_of_nothing_is_empty(store, ids):
    for run_ids, values in (([], [metrics.LR]), ([ids["good"]], []), ([ids["good"]], ["none"])):
        found = load_history(store.uri, run_ids, values)
        assert found.empty
        assert list(found.columns) == list(HISTORY_COLUMNS)


def test_server_gives_what_the_file_gives(server, store, frame, ids):
    pd.testing.assert_frame_equal(load_runs(server, NAME), frame)
    asked = (list(frame["run_id"]), [metrics.VAL_TOP1, metrics.VAL_LOSS, metrics.TEST_TOP1])
    pd.testing.assert_frame_equal(load_history(server, *asked), load_history(store.uri, *asked))


def test_server_answers_that_were_truncated_are_requested_in_parts(
    server, store, frame, monkeypatch
):
    asked = (list(frame["run_id"]), [metrics.VAL_TOP1, metrics.TEST_TOP1])
    whole = load_history(store.uri, *asked)
    monkeypatch.setattr(module, "_BULK_POINTS", 2)
    pd.testing.assert_frame_equal(load_history(server, *asked), whole)


def test_server_without_the_bulk_route_is_read_run_by_run(server, store, frame, monkeypatch):
    asked = (list(frame["run_id"]), [metrics.VAL_TOP1, metrics.VAL_LOSS])
    monkeypatch.setattr(module, "_BULK_ROUTE", "/ajax-api/2.0/mlflow/metrics/no-such-route")
    pd.testing.assert_frame_equal(load_history(server, *asked), load_history(store.uri, *asked))


def test_selection_says_why_each_run_does_not_count(frame, ids):
    kept, left_out = select(frame, stage="distill", bench="toy")
    short = {run_id: short for short, run_id in ids.items()}
    assert {short[run_id] for run_id in kept["run_id"]} == {
        "good",
        "original",
        "first",
        "replayed alone",
    }
    assert {short[run]: why for run, why in left_out[["run_id", "reason"]].to_numpy()} == {
        "odd": "no test value",
        "failed": "failed",
        "killed": "killed",
        "running": "running",
        "no value": "no test value",
        "infinite": "no test value",
        "replayed": "duplicate key",
        "second": "duplicate key",
        "failed original": "failed",
    }


def test_selection_by_stage_and_by_what_a_run_needs(frame, ids):
    teachers = select(frame, stage="finetune", needs=metrics.VAL_TOP1)
    assert teachers.kept["run_id"].tolist() == [ids["teacher"]]
    assert select(frame, stage="finetune").left_out["reason"].tolist() == ["no test value"]
    lr = select(frame, stage="distill", bench="toy", needs=metrics.LR)
    assert lr.kept["run_id"].tolist() == [ids["good"]]
    assert "no train/lr" in set(lr.left_out["reason"])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("nonsense://name:secret@x", "no tracking store at nonsense://x: its address begins with"),
        ("http://name:secret@127.0.0.1:9", "store at http://127.0.0.1:9 does not answer"),
    ],
)
def test_a_store_that_does_not_exist_is_one_line_without_the_password(uri, expected, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match=expected) as raised:
        load_runs(uri, "asib")
    assert "secret" not in str(raised.value)


def test_a_share_outside_0_to_1_is_left_out_with_the_reason() -> None:
    rows = [distill("L4", seed, test) for seed, test in enumerate((0.5, 1.7, -0.1, math.inf))]
    found = select(runs(*rows), stage="distill")
    assert found.kept["run_id"].tolist() == ["r0"]
    reasons = ["test/top1 is no share", "test/top1 is no share", "no test value"]
    assert found.left_out["reason"].tolist() == reasons
