"""The one address that a command prints."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.view import experiment_words, view
from tests.faulty_server import FaultyServer


def test_a_server_shows_the_students_by_test_accuracy(faulty: FaultyServer, tmp_path: Path) -> None:
    target = TrackingTarget(faulty.uri, "asib/x", None, "distill", tmp_path)
    parts = urlsplit(urlsplit(view(target)).fragment)
    assert parts.path == f"/experiments/{target.experiment_id()}/runs"
    assert parse_qs(parts.query) == {
        "workflowType": ["machine_learning"],
        "searchFilter": ["tags.stage = 'distill'"],
        "orderByKey": ["metrics.`test/top1`"],
        "orderByAsc": ["false"],
    }
    by_number = TrackingTarget(faulty.uri, f"#{target.experiment_id()}", None, "v", tmp_path)
    assert experiment_words(by_number) == ["experiment=asib/x"]


def test_a_file_is_shown_by_a_command_and_a_server_that_is_away_by_its_address(
    tmp_path: Path,
) -> None:
    def shown(uri: str) -> str:
        return view(TrackingTarget(uri, "asib", None, "distill", tmp_path))

    assert shown("sqlite:////a b/mlflow.db") == (
        "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"
    )
    assert shown("postgresql://u:p@h/x") == 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    assert shown("http://user:word@127.0.0.1:9") == "http://127.0.0.1:9"
