"""Exported files of strangers: whatever is in one, it is one clear message, or harmless."""

import lzma
import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from analysis import tags
from analysis.runs import export, exported_experiment, load_history, load_runs
from analysis.stores import archive
from pipeline.__main__ import main
from trainers import metrics

NAME = "of a friend"
ESC = "\x1b]0;owned\x07\x1b[31m"
Change = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def ids(store) -> list[str]:
    curve = {metrics.VAL_TOP1: [(0, 0.1), (1, 0.2)]}
    return [
        store.distill(NAME, rung, seed, 0.5 + seed / 10, metrics=curve)
        for rung in ("CE", "KD", "L3")
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def data(store, ids) -> bytes:
    return lzma.decompress(export(store.uri, NAME, ids, [metrics.VAL_TOP1]))


def changed(data: bytes, change: Change) -> bytes:
    base = sqlite3.connect(":memory:")
    base.deserialize(data)
    change(base)
    base.commit()
    return base.serialize()


def file_of(folder: Path, data: bytes) -> str:
    path = folder / f"x{archive.SUFFIX}"
    path.write_bytes(lzma.compress(data))
    return str(path)


def sql(*statements: str) -> Change:
    return lambda base: [base.execute(one) for one in statements]


SCHEMAS = {
    "view": sql(
        "ALTER TABLE params RENAME TO p", "CREATE VIEW params AS SELECT * FROM p, p AS q, p AS r"
    ),
    "trigger": sql("CREATE TRIGGER t AFTER INSERT ON tags BEGIN DELETE FROM runs; END"),
    "index": sql("CREATE INDEX i ON runs (abs(status))"),
    "computed": sql(
        "ALTER TABLE tags RENAME TO t",
        "CREATE TABLE tags (run_uuid, key, value AS (hex(zeroblob(100000000))))",
    ),
    "another table": sql("CREATE TABLE more (x)"),
    "another column": sql("ALTER TABLE runs ADD COLUMN y DEFAULT 1"),
    "no experiment": sql("DELETE FROM experiments"),
    "two experiments": sql("INSERT INTO experiments SELECT * FROM experiments"),
    "a run twice": sql("INSERT INTO runs SELECT * FROM runs"),
    "text for a number": sql("UPDATE metrics SET value = 'high'"),
    "text for a step": sql("UPDATE metrics SET step = '1'"),
    "a number for text": sql("UPDATE tags SET value = 3"),
    "bytes for text": sql("UPDATE params SET key = x'00ff'"),
    "no status": sql("UPDATE runs SET status = NULL"),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_file_that_export_does_not_make_is_one_message(
    data: bytes, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, changed(data, SCHEMAS[kind]))
    with pytest.raises(ValueError, match="damaged, or not made by export"):
        exported_experiment(path)
    assert main(["analyze", f"store={path}", f"out={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") <= 3


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="unpacks to more than 1 MiB"):
        exported_experiment(file_of(tmp_path, bytes(50 << 20)))


def test_what_wants_too_much_memory_to_unpack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"x{archive.SUFFIX}"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    path.write_bytes(lzma.compress(b"x", filters=filters))
    with pytest.raises(ValueError, match="damaged, or not made by export"):
        exported_experiment(str(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 1000, lzma.compress(b"SQLite")])
def test_what_is_no_export_is_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"x{archive.SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged, or not made by export"):
        exported_experiment(str(path))


def read(path: str, ids: list[str]) -> None:
    """Everything that an analysis reads of a file."""
    load_runs(path, exported_experiment(path))
    load_history(path, ids, [metrics.VAL_TOP1])


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_page_is_one_message_or_another_value(
    data: bytes, ids: list[str], tmp_path: Path, seed: int
) -> None:
    chance, damaged = random.Random(seed), bytearray(data)
    for _ in range(20):
        damaged[chance.randrange(100, len(damaged))] = chance.randrange(256)
    path = file_of(tmp_path, bytes(damaged))
    with suppress(ValueError):  # and no other exception
        read(path, ids)


HOSTILE = {
    "path": "../../../../tmp/owned",
    "terminal": f"{ESC}name",
    "markdown": "![x](http://127.0.0.1:9/x) | [y](javascript:alert(1)) <img src=x onerror=a()>",
    "html": "<script>alert(1)</script>",
    "shell": "$(touch owned); `touch owned`; ' && touch owned",
    "formula": r"$\bad{$ \input{/etc/passwd}",
    "lines": "a\n# b\n```\nc\r\nd",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_names_are_harmless(
    data: bytes,
    ids: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    name = HOSTILE[kind]

    def change(base: sqlite3.Connection) -> None:
        base.execute("UPDATE runs SET name = ?", (name,))
        base.execute("UPDATE experiments SET name = ?", (name,))
        for key in (tags.BENCH, tags.TEACHERS, tags.STUDENT, tags.RUN_KEY):
            base.execute("UPDATE tags SET value = ? WHERE key = ?", (name, key))
        base.execute("UPDATE tags SET value = ? WHERE value = 'L3'", (name,))
        base.execute("UPDATE params SET value = ?", (name,))

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path, out = file_of(tmp_path, changed(data, change)), tmp_path / "work" / "out"
    codes = [
        main(["analyze", f"store={path}", f"out={out}", "what=comprehensive"]),
        main(["compare", *ids[:2], f"store={path}"]),
        main(["explain", *ids[:2], f"store={path}"]),
    ]
    output = "".join(capsys.readouterr())
    assert set(codes) <= {0, 2}
    assert codes[0] == 0, output
    assert not set(map(chr, range(32))) & set(output) - {"\n", "\t"}
    assert "\x1b" not in output + "".join(p.read_text() for p in out.glob("*.[mtc]*"))
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    text = re.sub(r"(?s)\n(````*)bash\n.*?\n\1\n", "", text)  # code is shown as it is
    assert "](http://127" not in text
    assert "](javascript" not in text
    assert "<script" not in text.replace(r"\<", "")
    assert "<img" not in text.replace(r"\<", "")
    written = {file.parent for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {tmp_path, out}
