"""View banks on disk: made in parts by one process or several, with room on the disk."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.identity import splits
from pipeline.session import Session
from pipeline.stages import bank_parts, view_bank
from pipeline.stages.student import StudentStage
from pipeline.stages.teacher import Teachers
from pipeline.stages.view_bank import bank_key, check_space, missing_bytes, whole_bytes
from pipeline.storage.run_store import Store
from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.bank_codes import BankConfig, Codes
from trainers.errors import Interrupted, UserError
from trainers.view_bank import Bank, TableOutputs, ViewOutputs, bank_bytes

CPU = torch.device("cpu")
ROWS = 400  # 200 images, 2 views: four chunks, so four parts here
WIDTH, CLASSES, VAL = 64, 10, 22

# Claims part 1 of a bank, reports it and is killed.
CLAIM = """
import sys, time
from pathlib import Path
from pipeline.storage.lease import try_acquire
assert try_acquire(Path(sys.argv[1]) / "parts" / "000001", heartbeat_s=0.05)
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.make_world()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_parts, "CHUNKS_A_PART", 1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny.compose("KD", f"runtime.store={tmp_path}", "runtime.heartbeat_s=0.05")


def session(config: Config, name: str = "runs") -> Session:
    store = Store(Path(config.runtime.store) / name)
    return Session(config.runtime, store, None, CPU)  # type: ignore[arg-type]


def bank(config: Config, world: World, one: Session) -> Bank:
    model = world.teachers[0].model
    return view_bank.view_bank(
        one, "key", "bank-of-a-test", model, world.data, config.data, config.numerics
    )[0]


def mapped_bank(config: Config, world: World, one: Session) -> Bank:
    model, tables = world.teachers[0].model, one.store.root / "tables"
    return view_bank.view_bank(
        one, "key", "bank-of-a-test", model, world.data, config.data, config.numerics, tables
    )[0]


def files(one: Session) -> dict[str, bytes]:
    """The files of the bank without those that hold times."""
    folder = one.store.run("bank", "key").path
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".safetensors"}


def test_a_bank_is_what_its_teacher_gives(config: Config, world: World) -> None:
    one = session(config)
    made, again = bank(config, world, one), bank(config, world, one)
    assert tiny.differences(made, world.teachers[0].bank) == []
    assert tiny.differences(again, made) == []
    assert len(files(one)) == 5
    assert not (one.store.run("bank", "key").path / "parts").exists()


@pytest.mark.parametrize(("ranks", "said"), [(1, 2), (2, 3)])  # alone and shared; by every rank
def test_two_processes_share_the_parts_and_make_the_bank_of_one(
    config: Config,
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
    ranks: int,
    said: int,
) -> None:
    alone, shared, made = session(config, "alone"), session(config, "shared"), []
    shared.ranks.world = ranks
    want = bank(config, world, alone)
    outputs, by = view_bank.view_outputs, dict[int, set[int]]()

    def meeting(model: Any, *args: Any, start: int, stop: int) -> Iterator[Any]:
        by.setdefault(id(model), set()).add(start)
        while len(by) < 2:  # no process makes a second part before the other has claimed one
            pass
        return outputs(model, *args, start=start, stop=stop)

    monkeypatch.setattr(view_bank, "view_outputs", meeting)
    worlds = [world, copy.deepcopy(world)]
    threads = [Thread(target=lambda w=w: made.append(bank(config, w, shared))) for w in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [tiny.differences(one, want) for one in made] == [[], []]
    one, other = by.values()
    assert one | other == {0, 1, 2, 3}
    assert not one & other
    assert files(shared) == files(alone)
    assert capsys.readouterr().out.count("finished view bank") == said


def test_a_killed_process_loses_the_part_that_it_was_making(
    config: Config, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, other = session(config, "alone"), session(config, "other")
    want, folder = bank(config, world, alone), other.store.run("bank", "key").path
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "claimed\n"
        found: list[Bank] = []
        thread = Thread(target=lambda: found.append(bank(config, world, other)))
        thread.start()
        while "is being made by" not in capsys.readouterr().out:
            assert thread.is_alive()
        assert sorted(p.name[:11] for p in folder.glob("part-*")) == [
            f"part-{n:06d}" for n in (0, 2, 3)
        ]
        killed.kill()
    thread.join(timeout=60)
    assert tiny.differences(found, [want]) == []
    assert files(other) == files(alone)


def test_parts_that_are_stored_are_kept_and_a_damaged_one_is_made_again(
    config: Config, world: World
) -> None:
    one = session(config)
    want, whole = bank(config, world, one), files(one)
    folder = one.store.run("bank", "key").path
    (first, second, *_) = sorted(folder.glob("part-*"))
    (folder / "bank.json").unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    before = first.stat().st_mtime_ns
    assert tiny.differences(bank(config, world, one), want) == []
    assert first.stat().st_mtime_ns == before
    assert files(one) == whole
    assert (folder / f"{second.name}.corrupt").exists()


def test_a_bank_is_mapped_from_its_parts(config: Config, world: World) -> None:
    """The same bits, before and after one of its parts was damaged."""
    one = session(config)
    want, rows = bank(config, world, one), torch.arange(ROWS)
    for damaged in (False, True):
        if damaged:
            second = sorted(one.store.run("bank", "key").path.glob("part-*"))[1]
            second.write_bytes(second.read_bytes()[:-1] + b"x")
        found = mapped_bank(config, world, one)
        assert isinstance(found.train, TableOutputs)
        assert tiny.differences(found.train.at(rows), want.train.at(rows)) == []
        assert tiny.differences(found.val, want.val) == []
    assert not (one.store.root / "tables").exists()  # made when a run needs it


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_bank_keeps_what_is_asked_of_training_views(
    is_mapped: bool, config: Config, world: World
) -> None:
    one, kept = session(config), BankConfig(logits=3, features="int8")
    codes, whole = Codes.of(kept, CLASSES), bank(config, world, one)
    small = view_bank.view_bank(
        *(one, "small", "bank-of-a-test", world.teachers[0].model, world.data, config.data),
        *(config.numerics, one.store.root / "tables" if is_mapped else None, kept),
    )[0]
    rows = ViewOutputs(*(table[torch.arange(ROWS)] for table in whole.train[:2]))
    for found, code, name in zip(small.train[:2], codes, rows._fields, strict=True):
        want = getattr(rows, name)
        assert torch.equal(found[torch.arange(ROWS)], code.unpack(code.pack(want)))
    assert tiny.differences(small.val, whole.val) == []  # validation is of whole outputs
    sizes = [
        sum(path.stat().st_size for path in one.store.run("bank", key).path.glob("part-*"))
        for key in ("key", "small")
    ]
    assert sizes[0] - sizes[1] >= bank_bytes(ROWS, 10, 64) - bank_bytes(ROWS, 10, 64, codes) - 100


def test_banks_that_keep_less_have_other_keys_and_take_less_disk() -> None:
    whole = tiny.compose("KD")
    options = ["bank.logits=3", "bank.logits=4", "bank.features=int8"]
    keys = {bank_key(tiny.compose("KD", *words), 0) for words in ([], *([o] for o in options))}
    assert len(keys) == 4
    assert bank_key(tiny.compose("KD", "bank.logits=all"), 0) == bank_key(whole, 0)
    less = tiny.compose("KD", "bank.logits=3", "bank.features=int8")
    assert whole_bytes(less, "resnet8") == ROWS * (14 + 66) + bank_bytes(VAL, CLASSES, WIDTH)
    assert whole_bytes(whole, "resnet8") == bank_bytes(ROWS + VAL, CLASSES, WIDTH)


def test_a_disk_has_room_for_a_bank_that_keeps_less(
    config: Config, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, kept = session(config), BankConfig(features="int8")
    arguments = (one, "key", "a", world.teachers[0].model, world.data, config.data)
    free(monkeypatch, ROWS * (20 + 66) + bank_bytes(VAL, CLASSES, WIDTH))
    with pytest.raises(UserError, match=r"bank\.logits, bank\.features"):
        view_bank.view_bank(*arguments, config.numerics)
    view_bank.view_bank(*arguments, config.numerics, kept=kept)


@pytest.mark.parametrize(("over", "folder"), [(0, None), (1, "tables")])
def test_banks_are_mapped_where_they_do_not_fit_next_to_the_images(
    over: int, folder: str | None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, data = session(config), splits(config.data)
    images = 200 * (8 * 8 + 10 * 10)  # and their padded copies
    banks = 2 * bank_bytes(ROWS + VAL, CLASSES, WIDTH)
    one.runtime.device_budget = str(images + banks - over)
    for numbers in ([0, 1], [0]):
        found = Teachers(config, one, data, numbers).tables
        mapped = folder if len(numbers) == 2 else None
        assert found == (mapped and one.store.root.parent / mapped)
    other = tiny.compose("KD", "data.views=0", "runtime.device_budget=1")
    assert Teachers(other, one, data, [0, 1]).tables is None  # there are none


def test_a_method_that_reads_whole_banks_is_refused_before_teachers_are_trained(
    config: Config, tmp_path: Path
) -> None:
    c = tiny.compose("stack", f"runtime.store={tmp_path}", "runtime.device_budget=50kB")
    stage = StudentStage(c, c, session(c))
    with pytest.raises(UserError, match=r"method\.kd_target=stack .*runtime\.device_budget"):
        stage.prepare()
    assert not (tmp_path / "runs").exists()


def test_a_stop_ends_it_between_two_parts(config: Config, world: World) -> None:
    one, left = session(config), [2]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    one.stop = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        bank(config, world, one)
    assert len(files(one)) == 2


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))


def test_a_disk_without_room_is_one_error_before_anything_is_made(
    config: Config, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, needed = session(config), bank_bytes(ROWS + VAL, CLASSES, WIDTH)
    free(monkeypatch, needed - 1)
    message = r"bank-of-a-test: 0\.1 MB are needed in .*, 0\.1 MB are free; .*runtime\.store=FOLDER"
    with pytest.raises(UserError, match=message):
        bank(config, world, one)
    assert not one.store.run("bank", "key").path.exists()
    free(monkeypatch, needed)
    bank(config, world, one)


def test_parts_that_are_stored_need_no_more_room(
    config: Config, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = session(config)
    bank(config, world, one)
    (one.store.run("bank", "key").path / "bank.json").unlink()
    free(monkeypatch, bank_bytes(VAL, CLASSES, WIDTH))
    bank(config, world, one)


def test_what_is_missing_of_a_bank_is_known_before_it_is_made(config: Config, world: World) -> None:
    one = session(config)
    whole = bank_bytes(ROWS + VAL, CLASSES, WIDTH)
    assert missing_bytes(config, 0, one.store) == whole
    folder = one.store.run("bank", bank_key(config, 0))
    folder.save_tensors("part-000000", {"logits": torch.zeros(128, 74).half()})
    assert whole - 128 * 74 * 2 - 200 < missing_bytes(config, 0, one.store) < whole - 128 * 74 * 2
    timm = tiny.compose("KD", "teacher.0.model=timm:resnet10t", "data.image_size=32")
    assert missing_bytes(timm, 0, one.store) == bank_bytes(ROWS + VAL, CLASSES, 512)


@pytest.mark.parametrize(("count", "text"), [(20_480_000_000, "20.5 GB"), (3_100_000, "3.1 MB")])
def test_sizes_are_read_as_they_are_given(
    count: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 0)
    with pytest.raises(UserError, match=f"view bank a, b: {text} are needed in {tmp_path}"):
        check_space(tmp_path / "not" / "there", {"a": count - 1000, "b": 1000})
    check_space(tmp_path, {})
