"""Records of runs: read back as written, from older schemas too; refused where they cannot be."""

import json
from typing import Any

import pytest

from pipeline.storage.atomic import CorruptFile
from pipeline.storage.run_record import (
    SCHEMA,
    NewerRecord,
    RunResult,
    RunSpec,
    UnreadableRecord,
)
from tests.pipeline import records


def test_records_survive_json() -> None:
    spec = records.spec(tags={"rung": "L3"}, texts={"a.txt": "a"}, folder="f0")
    result = records.result(metrics={"test/top1": 0.5}, weights={"student": "0"})
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_record_without_a_schema_is_brought_up_to_date() -> None:
    body = records.spec().to_json()
    del body["schema"], body["texts"]
    assert RunSpec.from_json(body | {"an old key": 1}).schema == SCHEMA


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "1"}, "no record"),
        ({"config": [1]}, "'config' that is no dict"),
        ({"tags": None}, "'tags' that is no dict"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableRecord, match=reason):
        RunSpec.from_json(records.spec().to_json() | change)


def test_a_record_of_a_newer_version_is_no_damage() -> None:
    with pytest.raises(NewerRecord, match="newer version wrote: install that version") as raised:
        RunSpec.from_json(records.spec().to_json() | {"schema": SCHEMA + 1})
    assert not isinstance(raised.value, CorruptFile)


def test_a_key_that_is_missing_is_named() -> None:
    body = records.result().to_json()
    del body["history"]
    with pytest.raises(UnreadableRecord, match="lacks 'history'"):
        RunResult.from_json(body)
