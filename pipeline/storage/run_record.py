"""Record of a run: the two JSON files of its folder as types, `spec.json` and `result.json`.

Both carry the number of their schema. A file of an older schema is brought up to date when it is
read; the first schema had no number.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self, TypedDict, get_origin, get_type_hints

from pipeline.storage.atomic import CorruptFile
from trainers.errors import UserError

SCHEMA = 1


class UnreadableRecord(CorruptFile):
    """A record without what its schema requires."""


class NewerRecord(UserError):
    """A record that a newer version has written; it is no damage, and is left as it is."""


class HistoryEntry(TypedDict):
    """One epoch of a run."""

    index: int
    stage: int
    step: str  # A | B
    time: int  # milliseconds since 1970
    metrics: dict[str, float]


class Record:
    """A dataclass in a JSON file."""

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, body: Any) -> Self:
        """The record that a file holds, of this schema or an older one.

        Raises:
            UnreadableRecord, NewerRecord
        """
        if not isinstance(body, dict) or not isinstance(body.get("schema", 0), int):
            raise UnreadableRecord("is no record of a run")
        if body.get("schema", 0) > SCHEMA:
            raise NewerRecord(
                f"a record of the store has schema {body['schema']}, which a newer version wrote: "
                "install that version, or use another runtime.store"
            )
        known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
        values = {name: body[name] for name in known if name in body} | {"schema": SCHEMA}
        hints = get_type_hints(cls)
        for name, one in known.items():
            if name not in values and one.default is one.default_factory is MISSING:
                raise UnreadableRecord(f"lacks {name!r}")
            wanted = get_origin(hints[name]) or hints[name]
            if name in values and not isinstance(values[name], wanted):
                raise UnreadableRecord(f"has a {name!r} that is no {wanted.__name__}")
        return cls(**values)


@dataclass(frozen=True)
class RunSpec(Record):
    """Description of a run, written when it starts: enough to send it to a tracking store."""

    name: str  # distill-L3-digits-s0
    time: int  # of the start, milliseconds since 1970
    identity: dict[str, Any]  # what its key is the hash of
    config: dict[str, Any]  # the composed configuration
    params: dict[str, str]
    tags: dict[str, str]
    data: dict[str, str]  # name and digest of the data set
    versions: dict[str, str] = field(default_factory=dict)  # of Python and of packages
    texts: dict[str, str] = field(default_factory=dict)  # files that are logged, by name
    folder: str = ""  # a random name, which another folder of the same key has not
    schema: int = SCHEMA


@dataclass(frozen=True)
class RunResult(Record):
    """Result of a finished run."""

    key: str
    time: int  # of the end, milliseconds since 1970
    metrics: dict[str, float]
    history: list[HistoryEntry]
    weights: dict[str, str]  # sha256 of the safetensors files, by name
    tags: dict[str, str]
    schema: int = SCHEMA


@dataclass(frozen=True)
class BankRecord(Record):
    """A complete view bank: sha256 of its files, in order."""

    parts: list[str]
    val: str
    seconds: float  # that making it took
    name: str = ""  # absent in banks of an older version
    schema: int = SCHEMA
