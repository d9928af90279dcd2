"""The store, with damaged files, full disks and writers that are killed."""

import collections
import errno
import json
import math
import multiprocessing
import os
import pickle
import random
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from pipeline.storage import run_store
from pipeline.storage.atomic import CorruptFile, HashingWriter, sha256, write_atomic
from pipeline.storage.run_store import RunFolder, Store
from tests.pipeline import records

FORK = multiprocessing.get_context("fork")
TOKEN, OTHER = "0123abcd" * 4, "fedc9876" * 4


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return Store(tmp_path / "store").run("distill", "0a1b2c3d4e5f")


def names(run: RunFolder, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in run.path.glob(pattern))


def number_state(number: int) -> dict[str, Any]:
    return {"position": number, "weights": torch.full((1000,), float(number))}


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, bytes]:
    return tensor.dtype, bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())


def commit_many(run: RunFolder, count: int) -> list[Path]:
    """Commits states 1 to `count`, each with as long a history."""
    history = [{"epoch": epoch} for epoch in range(count)]
    return [
        run.commit(number_state(number), history[:number], token=TOKEN)
        for number in range(1, count + 1)
    ]


def test_nothing_is_created_before_something_is_written(run: RunFolder) -> None:
    assert run.latest() is None
    assert run.result() is None
    assert run.read_json("config") is None
    assert run.test_reads() == 0
    assert Store(run.root).runs() == []
    assert not run.root.exists()


def test_runs_lists_all_folders(run: RunFolder) -> None:
    other = Store(run.root).run("analyze", "ffff")
    run.write_json("config", 1)
    other.write_json("config", 2)
    write_atomic(run.root / "stray" / "file", b"")
    (run.root / "distill" / ".hidden").mkdir()
    assert Store(run.root).runs() == [other, run]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "config.json", "*"])
def test_names_must_be_plain(run: RunFolder, name: str) -> None:
    for call in (
        lambda: Store(run.root).run("distill", name),
        lambda: Store(run.root).run(name, "abc"),
        lambda: run.write_json(name, 1),
        lambda: run.save_tensors(name, {}),
    ):
        with pytest.raises(ValueError, match="plain name"):
            call()


def test_a_commit_comes_back_bit_for_bit(run: RunFolder) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = {  # as AdamW's, whose import takes five seconds
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.randn(3)}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "fused": None, "params": [0, 1]}],
    }
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimiser": optimiser,
        "special": [special, special.half(), special.bfloat16(), torch.tensor([], dtype=torch.int)],
        "rng": torch.get_rng_state(),
        "plain": {"none": None, "yes": True, "big": 2**70, "name": "ä", "nan": math.nan, 3: 0.1},
    }
    history = [{"epoch": 0, "train/top1": 0.1, "loss": math.inf}]
    path = run.commit(state, history, token=TOKEN)
    assert path.name == f"commit-00000001.{TOKEN[:8]}.{sha256(path)}.pt"
    with torch.no_grad():  # what was committed is a snapshot
        saved = [tensor.clone() for tensor in (*state["special"], *model.state_dict().values())]
        next(model.parameters()).zero_()
    latest = run.latest()
    assert latest is not None
    assert latest.number == 1
    assert latest.history == history
    assert repr(latest.state["plain"]) == repr(state["plain"])
    assert repr(latest.state["optimiser"]) == repr(state["optimiser"])
    assert torch.equal(latest.state["rng"], state["rng"])
    loaded = [*latest.state["special"], *latest.state["model"].values()]
    assert [bits(tensor) for tensor in loaded] == [bits(tensor) for tensor in saved]


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"lr": numpy.float64(0.1)}, r"commit\['state'\]\['lr'\] is of type float64"),
        ({"a": [1, {"b": {1, 2}}]}, r"\['a'\]\[1\]\['b'\] is of type set"),
        ({"a": {(1, 2): 3}}, "key of type tuple"),
        ({"a": collections.Counter()}, "is of type Counter"),
    ],
)
def test_a_state_that_could_not_be_loaded_is_refused(
    run: RunFolder, state: dict[str, Any], where: str
) -> None:
    with pytest.raises(TypeError, match=where):
        run.commit(state, [], token=TOKEN)
    assert not run.path.exists()


def test_a_commit_of_many_tensors_is_few_writes(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was digested and written by itself, five times over: its name, its place, its bytes."""
    sizes, write = list[int](), HashingWriter.write

    def counted(self: HashingWriter, data: memoryview) -> int:
        sizes.append(memoryview(data).nbytes)
        return write(self, data)

    monkeypatch.setattr(HashingWriter, "write", counted)
    path = run.commit({str(k): torch.full((64,), float(k)) for k in range(500)}, [], token=TOKEN)
    assert sum(sizes) == path.stat().st_size
    assert len(sizes) <= 3
    latest = run.latest()
    assert latest is not None
    assert float(latest.state["499"].sum()) == 499 * 64


def test_a_token_that_would_break_the_name_is_refused(run: RunFolder) -> None:
    for token in ("", "a/b", "a.b"):
        with pytest.raises(ValueError, match="alphanumeric"):
            run.commit({}, [], token=token)


def test_two_generations_are_kept(run: RunFolder) -> None:
    paths = commit_many(run, 5)
    assert names(run) == [path.name for path in paths[-2:]]
    latest = run.latest()
    assert latest is not None
    assert (latest.number, latest.state["position"], len(latest.history)) == (5, 5, 5)


def truncate(keep: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * keep))


def flip(where: float) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(len(data) * where)] ^= 0x10
        path.write_bytes(data)

    return harm


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


HARMS = {
    "empty": truncate(0),
    "half": truncate(0.5),
    "last bytes gone": truncate(0.999),
    "first byte": flip(0),
    "middle byte": flip(0.5),
    "late byte": flip(0.99),
    "longer": append,
}
harms = pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))


@harms
def test_a_damaged_commit_is_moved_aside_for_the_one_before(
    run: RunFolder, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    older, newest = commit_many(run, 2)
    harm(newest)
    latest = run.latest()
    assert latest is not None
    assert latest.state["position"] == 1
    assert newest.name in caplog.text
    assert "the checkpoint before it is used" in caplog.text
    assert names(run) == [older.name, newest.name + ".corrupt"]
    again = run.commit(number_state(2), [], token=OTHER)
    assert names(run, "*.pt") == [older.name, again.name]


def test_without_an_intact_checkpoint_a_warning_is_logged(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for path in commit_many(run, 3)[-2:]:
        truncate(0.5)(path)
    assert run.latest() is None
    assert "starts from the beginning" in caplog.text
    assert len(names(run, "*.corrupt")) == 2
    caplog.clear()
    assert run.latest() is None
    assert not caplog.records


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def save_zip(payload: object, path: Path) -> None:
    torch.save(payload, path)


def save_old_zip(payload: object, path: Path) -> None:
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def save_pickle(payload: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload))


def save_alien_zip(payload: object, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/pickle", pickle.dumps(payload))


@pytest.mark.parametrize("save", [save_zip, save_old_zip, save_pickle, save_alien_zip])
def test_code_in_a_commit_is_not_run(
    run: RunFolder, tmp_path: Path, save: Callable[[object, Path], None]
) -> None:
    commit_many(run, 1)
    payload = {"state": {"a": Malicious(tmp_path / "proof")}, "history": []}
    save(payload, tmp_path / "made")
    digest = sha256(tmp_path / "made")
    bad = run.path / f"commit-00000002.{TOKEN[:8]}.{digest}.pt"
    (tmp_path / "made").rename(bad)
    latest = run.latest()
    assert latest is not None
    assert latest.number == 1
    assert not (tmp_path / "proof").exists()
    assert names(run, "*.corrupt") == [bad.name + ".corrupt"]


def test_want_of_memory_does_not_condemn_a_commit(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_many(run, 1)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="allocate"):
        run.latest()
    assert len(names(run, "*.pt")) == 1


def test_a_commit_deleted_while_it_is_read_is_no_matter(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit_many(run, 2)
    load = run_store.load_commit

    def overtaken(path: Path) -> run_store.Commit:
        monkeypatch.setattr(run_store, "load_commit", load)
        for number in (3, 4):
            run.commit(number_state(number), [], token=TOKEN)
        return load(path)

    monkeypatch.setattr(run_store, "load_commit", overtaken)
    latest = run.latest()
    assert latest is not None
    assert latest.state["position"] == 4
    assert not caplog.records


def commit_for_ever(run: RunFolder) -> None:
    torch.set_num_threads(1)  # a forked child has none of the parent's and would wait for them
    latest = run.latest()
    number = latest.state["position"] if latest else 0
    while True:
        number += 1
        run.commit({**number_state(number), "bulk": torch.zeros(50_000)}, [], token=OTHER)


def test_a_writer_killed_anywhere_leaves_a_good_commit(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    reached = 0
    for seed in range(5):
        before = names(run, "*.pt")
        process = FORK.Process(target=commit_for_ever, args=(run,))
        process.start()
        while names(run, "*.pt") == before:
            assert process.is_alive()
        time.sleep(random.Random(seed).uniform(0, 0.05))
        process.kill()
        process.join()
        latest = run.latest()
        assert latest is not None
        assert latest.state["weights"].unique().tolist() == [latest.state["position"]]
        assert latest.state["position"] > reached
        reached = latest.state["position"]
    assert not caplog.records
    run.commit(number_state(0), [], token=TOKEN)
    run.commit(number_state(0), [], token=TOKEN)
    assert names(run, ".*") == []  # what the killed ones left is gone
    assert len(names(run)) == 2


def test_a_zombie_and_a_new_holder_do_each_other_no_harm(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_many(run, 2)
    replace = Path.replace

    def frozen(path: Path, target: Path) -> Path:
        """The zombie sleeps just before its rename, while the new holder commits three times."""
        monkeypatch.setattr(Path, "replace", replace)
        half_written = run.path / ".commit-00000006.fedc9876.1-ff.tmp"
        for number in (3, 4, 5):
            run.commit(number_state(number), [], token=OTHER)
        half_written.touch()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", frozen)
    with pytest.raises(FileNotFoundError):  # its temporary file was cleared as stale
        run.commit(number_state(3), [], token=TOKEN)
    assert [name[:24] for name in names(run, "*.pt")] == [
        "commit-00000004.fedc9876",
        "commit-00000005.fedc9876",
    ]
    assert names(run, ".*") == [".commit-00000006.fedc9876.1-ff.tmp"]


def test_two_commits_of_one_number_stand_side_by_side(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_many(run, 2)
    replace = Path.replace

    def overtaken(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        run.commit(number_state(3), [], token=OTHER)
        (run.path / ".commit-00000003.fedc9876.1-ff.tmp").touch()  # and one that it is writing
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    run.commit(number_state(3), [], token=TOKEN)
    assert [name[:24] for name in names(run, "*.pt")] == [
        f"commit-00000002.{TOKEN[:8]}",
        f"commit-00000003.{TOKEN[:8]}",
        f"commit-00000003.{OTHER[:8]}",
    ]
    assert names(run, ".*") == [".commit-00000003.fedc9876.1-ff.tmp"]
    latest = run.latest()
    assert latest is not None
    assert latest.state["position"] == 3


WRITES: dict[str, Callable[[RunFolder], object]] = {
    "commit": lambda run: run.commit({"a": torch.ones(100_000)}, [], token=TOKEN),
    "json": lambda run: run.write_json("config", list(range(100_000))),
    "tensors": lambda run: run.save_tensors("student", {"a": torch.ones(100_000)}),
}


def write_within(run: RunFolder, write: Callable[[RunFolder], object], limit: int) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write(run)
    except OSError as error:
        os._exit(0 if error.errno == errno.EFBIG else 1)
    os._exit(2)


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_write_that_finds_no_room_changes_nothing(
    run: RunFolder, write: Callable[[RunFolder], object]
) -> None:
    commit_many(run, 2)
    run.write_json("config", "as it was")
    before = {name: sha256(run.path / name) for name in names(run)}
    process = FORK.Process(target=write_within, args=(run, write, 50_000))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert {name: sha256(run.path / name) for name in names(run)} == before
    assert names(run, ".*") == []


def test_a_full_disk_found_at_the_sync_changes_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_json("config", "as it was")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    for write in WRITES.values():
        with pytest.raises(OSError, match="full") as raised:
            write(run)
        assert raised.value.filename == str(run.path)
    assert names(run) == ["config.json"]
    assert names(run, ".*") == []
    assert run.read_json("config") == "as it was"


def test_json_comes_back(run: RunFolder) -> None:
    body = {"b": [0.1, 1e-300, None, True, "ä"], "a": {"10": 1, "9": 2}, "inf": -math.inf}
    run.write_json("config", body)
    assert run.read_json("config") == body
    assert list(run.read_json("config")) == ["b", "a", "inf"]  # type: ignore[arg-type]
    run.write_json("config", {2: (1, 2), 10: math.nan})
    assert repr(run.read_json("config")) == "{'2': [1, 2], '10': nan}"
    with pytest.raises(TypeError):
        run.write_json("config", {"a": torch.ones(1)})
    assert names(run) == ["config.json"]


@harms
def test_damaged_json_is_reported(run: RunFolder, harm: Callable[[Path], None]) -> None:
    run.write_json("config", {"values": list(range(100))})
    harm(run.path / "config.json")
    with pytest.raises(CorruptFile, match=r"config\.json"):
        run.read_json("config")


def test_edited_json_is_reported(run: RunFolder) -> None:
    run.write_json("config", {"lr": 0.1})
    path = run.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))  # the same values
    assert run.read_json("config") == {"lr": 0.1}
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(CorruptFile, match="sha256 differs"):
        run.read_json("config")


def test_tensors_come_back(run: RunFolder) -> None:
    shared = torch.randn(4, 6, requires_grad=True)
    tensors = {
        "shared": shared,
        "again": shared,
        "transposed": shared.T,
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.tensor([math.nan, math.inf]).bfloat16(),
        "count": torch.tensor(3),
    }
    digest = run.save_tensors("student", tensors, {"note": "best"})
    assert run.tensors_path("student").name == f"student.{digest}.safetensors"
    assert sha256(run.tensors_path("student")) == digest
    assert run.save_tensors("student", tensors, {"note": "best"}) == digest
    for loaded in (run.load_tensors("student"), run.load_tensors("student", digest)):
        assert loaded.keys() == tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(
                loaded[name], tensor.detach(), rtol=0, atol=0, equal_nan=True
            )


def test_tensors_of_one_name_stand_side_by_side(run: RunFolder) -> None:
    digests = [run.save_tensors("student", {"a": torch.full((1,), float(i))}) for i in range(2)]
    assert run.load_tensors("student", digests[0])["a"].item() == 0
    assert run.load_tensors("student", digests[1])["a"].item() == 1
    with pytest.raises(ValueError, match="several"):
        run.load_tensors("student")
    with pytest.raises(FileNotFoundError, match="teacher"):
        run.load_tensors("teacher")
    with pytest.raises(FileNotFoundError):
        run.load_tensors("student", "0" * 64)


@harms
def test_damaged_tensors_are_reported(run: RunFolder, harm: Callable[[Path], None]) -> None:
    digest = run.save_tensors("student", {"a": torch.randn(1000)})
    harm(run.tensors_path("student"))
    with pytest.raises(CorruptFile, match="student"):
        run.load_tensors("student", digest)


def test_finish_leaves_the_result_and_drops_the_commits(run: RunFolder) -> None:
    commit_many(run, 3)
    (run.path / ".commit-00000009.ab.1-2.tmp").touch()
    digest = run.save_tensors("student", {"a": torch.ones(2)})
    history = [{"index": 0, "metrics": {"loss": math.inf}}]
    result = records.result(key=run.key, history=history, weights={"student": digest})
    run.finish(result)
    assert run.result() == result
    assert names(run) == ["result.json", f"student.{digest}.safetensors"]
    assert names(run, ".*") == []
    assert run.latest() is None


def count_reads(run: RunFolder, times: int) -> None:
    for _ in range(times):
        run.count_test_read()


def test_readings_of_the_test_split_are_counted(run: RunFolder) -> None:
    assert [run.count_test_read() for _ in range(3)] == [1, 2, 3]
    assert run.test_reads() == 3
    workers = [FORK.Process(target=count_reads, args=(run, 10)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert run.test_reads() == 33
