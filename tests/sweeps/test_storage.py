"""Storage of trials: a journal that survives its writers, a database, clear errors."""

import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from pipeline.config import ConfigError
from sweeps.storage import JOURNAL, VARIABLE, storage, where
from sweeps.study import Study
from sweeps.trials import TrialStore


@pytest.mark.parametrize("torn", [b'{"op_code":4,"worker_id":"x', b"\x00" * 5000])
def test_an_incomplete_line_of_a_killed_writer_is_removed(tmp_path: Path, torn: bytes) -> None:
    first = optuna.create_study(storage=storage(tmp_path), study_name="s")
    first.tell(first.ask(), 1.0)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)
    second = optuna.load_study(storage=storage(tmp_path), study_name="s")
    second.tell(second.ask(), 2.0)
    first.tell(first.ask(), 3.0)
    third = optuna.load_study(storage=storage(tmp_path), study_name="s")
    for study in (first, second, third):
        assert [trial.value for trial in study.trials] == [1.0, 2.0, 3.0]


class Small(Study):
    """A study whose key needs no data set."""

    key = "small-0"  # type: ignore[assignment]


def test_a_journal_damaged_in_its_middle_is_one_message(tmp_path: Path) -> None:
    kept = storage(tmp_path)
    optuna.create_study(storage=kept, study_name="a")
    optuna.create_study(storage=kept, study_name="b")
    path = tmp_path / JOURNAL
    data = path.read_bytes()
    path.write_bytes(data[:10] + bytes(10) + data[20:])
    with pytest.raises(ConfigError, match=f"{path}: damaged .* Move it away"):
        optuna.create_study(storage=storage(tmp_path), study_name="c")


def test_a_database_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv(VARIABLE, address)
    trial_store = TrialStore(
        Small("s", [], space={"a": [1, 2]}), tmp_path, heartbeat_s=0.1, expiry_s=0.5
    )
    trial_store.enqueue()
    while (claimed := trial_store.take(2)) is not None:
        claimed.part.tell(claimed.trial, 0.5)
        claimed.lease.release()
    assert {trial.state for trial in trial_store.trials().values()} == {TrialState.COMPLETE}
    assert isinstance(storage(tmp_path), RDBStorage)
    assert not (trial_store.folder / JOURNAL).exists()
    assert where(tmp_path) == address


@pytest.mark.parametrize("address", ["nonsense", "nosuch://u:secret@h/d", "sqlite:////no/where/x"])
def test_a_database_that_cannot_be_opened_is_an_error_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv(VARIABLE, address)
    with pytest.raises(ConfigError, match=f"{VARIABLE}=") as raised:
        storage(tmp_path)
    assert "secret" not in str(raised.value) + where(tmp_path)


def test_a_database_of_another_version_of_optuna_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RDBStorage(f"sqlite:///{tmp_path}/study.db")
    with sqlite3.connect(tmp_path / "study.db") as base:
        base.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
        base.execute("UPDATE version_info SET schema_version = 5")
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(ConfigError, match=r"cannot be opened: .*storage upgrade"):
        storage(tmp_path)
