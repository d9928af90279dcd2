"""Files that are damaged or mean harm: each is one clear message, runs nothing, leaves nothing,
and needs no more memory than the honest file.

Every case writes its files below a folder and gives what must be called on them; the message has
to name the file. Payloads would create a file, the canary.
"""

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from tests.trainers.data import files
from trainers.data import DataDamaged, DataMissing, load, read_idx
from trainers.loop import peak_memory_mb, reset_peak_memory
from trainers.models.weight_files import BadCheckpoint, fit, read_weights

Call = Callable[[], object]
CANARY = "canary"
MOST_MB = 150  # every bomb here claims, or unpacks to, more
CPU = torch.device("cpu")


# Payloads -----------------------------------------------------------------------------------


class Runs:
    """Pickled, it calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def touch(root: Path) -> str:
    return f"open({str(root / CANARY)!r}, 'w')"


def by_reduce(root: Path) -> bytes:
    return pickle.dumps({"data": Runs(os.system, f"touch {root / CANARY}")}, 2)


def by_eval(root: Path) -> bytes:
    return pickle.dumps({"data": Runs(eval, touch(root)), "labels": []}, 4)


def by_exec_protocol_0(root: Path) -> bytes:
    return pickle.dumps(Runs(exec, touch(root)), 0)


def by_getattr(root: Path) -> bytes:
    """The function is fetched from an allowed module by the name's dots (protocol 4)."""
    return (
        b"\x80\x04\x8c\x0bnumpy._core\x8c\x14multiarray.os.system\x93"
        + pickle.dumps(f"touch {root / CANARY}", 4)[2:-1]
        + b"\x85R."
    )


def by_nesting(root: Path) -> bytes:
    """Inside the state of an honest array."""
    array = pickle.dumps(np.zeros(3, np.uint8), 2)
    return array[:-2] + pickle.dumps(Runs(eval, touch(root)), 2)[2:-1] + b"b."


def by_key(root: Path) -> bytes:
    return pickle.dumps({Runs(eval, touch(root)): 1}, 3)


def by_inst(root: Path) -> bytes:
    return b"(S" + repr(f"touch {root / CANARY}").encode() + b"\nios\nsystem\n."


def by_obj(root: Path) -> bytes:
    return b"(cos\nsystem\nS" + repr(f"touch {root / CANARY}").encode() + b"\no."


def by_newobj(root: Path) -> bytes:
    return b"\x80\x02csubprocess\nPopen\n]" + b"U\x05touch" + b"a\x85\x81."


def by_numpy_load(root: Path) -> bytes:
    """numpy's own functions are names too."""
    return pickle.dumps(Runs(np.save, str(root / CANARY), 1), 2)


def by_build_on_a_name(root: Path) -> bytes:
    """A state for the reader's own function, which would change it for what is read next."""
    return b"\x80\x02cnumpy\ndtype\n}U\x05_call" + b"cos\nsystem\nsb."


def by_extension(root: Path) -> bytes:
    return b"\x80\x02\x82\x01."


def by_persistent_id(root: Path) -> bytes:
    return b"\x80\x02U\x03abcQ."


def object_array(root: Path) -> bytes:
    return pickle.dumps({"data": np.array([Runs(eval, touch(root))], dtype=object)}, 2)


def memo_bomb(root: Path) -> bytes:
    return b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."


def length_bomb(root: Path) -> bytes:
    return b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc."


def many_opcodes(root: Path) -> bytes:
    """Every byte a dictionary: 64 times its size."""
    return b"\x80\x02" + b"}" * 20_000_000


def many_copies(root: Path) -> bytes:
    """The same megabyte made into bytes a thousand times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x000"
    again = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
    return b"\x80\x02" + text + b"](" + again * 1000 + b"e."


def shape_lie(root: Path) -> bytes:
    honest = files.python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 0]})
    rows = b"(J" + struct.pack("<i", 2) + b"J"
    assert rows in honest
    return honest.replace(rows, b"(J" + struct.pack("<i", 2**30) + b"J")


PICKLES = {
    function.__name__: function
    for function in (
        by_reduce,
        by_eval,
        by_exec_protocol_0,
        by_getattr,
        by_nesting,
        by_key,
        by_inst,
        by_obj,
        by_newobj,
        by_numpy_load,
        by_build_on_a_name,
        by_extension,
        by_persistent_id,
        object_array,
        memo_bomb,
        length_bomb,
        many_opcodes,
        many_copies,
        shape_lie,
    )
}
PICKLES |= {
    "empty": lambda root: b"",
    "truncated": lambda root: files.cifar_bytes("cifar10")["data_batch_2"][:50_000],
    "no dictionary": lambda root: pickle.dumps([1, 2]),
    "a web page": lambda root: b"<html>404</html>",
}


def changed(key: str, value: Any) -> Callable[[Path], bytes]:
    content = files.cifar_contents("cifar10")["data_batch_2"]
    return lambda root: files.python2_pickle(content | {key: value})


PICKLES |= {
    "label too large": changed("labels", [10] + [0] * 39),
    "label below 0": changed("labels", [-1] + [0] * 39),
    "huge label": lambda root: pickle.dumps({"data": files.rows(1, 0), "labels": [10**30]}, 2),
    "too many labels": changed("labels", [0] * 41),
    "too few labels": changed("labels", [0] * 39),
    "labels of text": changed("labels", ["0"] * 40),
    "no labels": changed("labels", None),
    "rows too short": changed("data", files.rows(40, 0)[:, :-1].copy()),
    "signed pixels": changed("data", files.rows(40, 0).astype(np.int8)),
    "pixels of text": changed("data", "x" * 3072),
}


# Cases: name → (write the files below a folder, what must be called) -------------------------


def in_cifar(body: Callable[[Path], bytes]) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        folder = files.write_cifar(root, "cifar10")
        (folder / "data_batch_2").write_bytes(body(root))
        return lambda: load(files.config("cifar10", root))

    return write


def in_imagenet(body: Callable[[Path], bytes]) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        paths = files.write_imagenet(root, "protocol 4")
        paths["val_data"].write_bytes(body(root))
        return lambda: load(files.config("imagenet32", root))

    return write


def in_npz(damage: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        path = files.write_imagenet(root)["train_data_batch_3"]
        damage(path, files.imagenet_contents()["train_data_batch_3"])
        return lambda: load(files.config("imagenet32", root))

    return write


def cut(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, content: dict[str, Any]) -> None:
    whole = bytearray(path.read_bytes())
    whole[5000] ^= 0xFF
    path.write_bytes(whole)


def objects(path: Path, content: dict[str, Any]) -> None:
    harm = np.array([Runs(eval, touch(path.parent))] * 30, dtype=object)
    np.savez(path, **(content | {"labels": harm}), allow_pickle=True)


def saved(**other: Any) -> Callable[[Path, dict[str, Any]], None]:
    return lambda path, content: np.savez_compressed(path, **(content | other))


def npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def bomb(path: Path, content: dict[str, Any]) -> None:
    """Zeros, 0.9 GB in 4 MB, as an array that is honest about it."""
    rows = 300_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("labels.npy", npy_header((1,)) + b"\x01")
        with archive.open("data.npy", "w", force_zip64=True) as file:
            file.write(npy_header((rows, 3072)))
            for _ in range(rows // 1000):
                file.write(bytes(3072 * 1000))


def header_lie(path: Path, content: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.npy", npy_header((1,)) + b"\x01")
        archive.writestr("data.npy", npy_header((100_000, 3072)) + bytes(3072))


def directory_lie(path: Path, content: dict[str, Any]) -> None:
    """The directory claims 400 MB for a member of some bytes."""
    header_lie(path, content)
    whole, size = bytearray(path.read_bytes()), struct.pack("<I", 400_000_000)
    at = whole.rindex(b"PK\x01\x02")
    whole[at + 24 : at + 28] = size
    path.write_bytes(whole)


def missing_array(path: Path, content: dict[str, Any]) -> None:
    np.savez(path, data=content["data"])


NPZ = {
    "truncated": cut,
    "flipped byte": flip,
    "array of objects": objects,
    "bomb": bomb,
    "header lies": header_lie,
    "directory lies": directory_lie,
    "no labels": missing_array,
    "label 0": saved(labels=[0] + [1] * 29),
    "label 1001": saved(labels=[1001] + [1] * 29),
    "label below 0": saved(labels=[-5] + [1] * 29),
    "too many labels": saved(labels=[1] * 31),
    "real labels": saved(labels=np.ones(30)),
    "real pixels": saved(data=np.ones((30, 3072))),
    "a pickle": lambda path, content: path.write_bytes(by_eval(path.parent)),
    "labels in a table": saved(labels=np.ones((30, 1), int)),
}


def in_tar(make: Callable[[Path], object]) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        make(root)
        return lambda: load(files.config("cifar10", root))

    return write


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar_with(name: str, extra: bytes | tarfile.TarInfo) -> Callable[[Path], object]:
    return lambda root: files.write_cifar_archive(root, "cifar10", **{name: extra})


def tar_of_zeros(root: Path) -> None:
    """Members that are not needed, 0.6 GB in 3 MB."""
    with tarfile.open(root / files.CIFAR_ARCHIVES["cifar10"], "w:gz", compresslevel=1) as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"zeros{number}")
            info.size = 200_000_000
            tar.addfile(info, io.BytesIO(bytes(info.size)))


def tar_claim(root: Path) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = 2**40
    packed = gzip.compress(info.tobuf() + bytes(4096))
    (root / files.CIFAR_ARCHIVES["cifar10"]).write_bytes(packed)


def tar_cut(root: Path) -> None:
    path = files.write_cifar_archive(root, "cifar10")
    path.write_bytes(path.read_bytes()[:200_000])


BATCH = "cifar-10-batches-py/data_batch_2"
TARS = {
    "path traversal": tar_with(f"../../{CANARY}", b"here"),
    "absolute path": tar_with(f"/tmp/{CANARY}", b"here"),
    "symlink": tar_with(BATCH, link(BATCH, "/etc/passwd", tarfile.SYMTYPE)),
    "hard link": tar_with(BATCH, link(BATCH, "../x", tarfile.LNKTYPE)),
    "device": tar_with("zero", link("zero", "", tarfile.CHRTYPE)),
    "bomb": tar_of_zeros,
    "claims a size": tar_claim,
    "truncated": tar_cut,
    "harmful member": tar_with(BATCH, pickle.dumps(Runs(print, "harm"), 2)),
    "no gzip": lambda root: (root / files.CIFAR_ARCHIVES["cifar10"]).write_bytes(b"<html>"),
}


def in_idx(name: str, data: bytes) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        (root / name).write_bytes(data)
        return lambda: read_idx(root / name)

    return write


def idx_header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def zeros_gz(start: bytes, count: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(start)]
    parts += [packer.compress(bytes(2**20)) for _ in range(count >> 20)]
    return b"".join([*parts, packer.flush()])


IDX = {
    "claims all memory": ("images", idx_header(2**32 - 1, 2**32 - 1, 2**32 - 1)),
    "claims 200 MB": ("images", idx_header(200_000_000) + bytes(99)),
    "claims 200 MB, packed": ("images.gz", gzip.compress(idx_header(200_000_000) + bytes(99))),
    "255 dimensions": ("images", bytes([0, 0, 8, 255]) + bytes(50)),
    "gzip bomb": ("images.gz", zeros_gz(idx_header(10, 28, 28), 2**30)),
    "honest gzip bomb": ("images.gz", zeros_gz(idx_header(2**30), 2**30)),
}


def in_folder(name: str, data: Callable[[], bytes]) -> Callable[[Path], Call]:
    def write(root: Path) -> Call:
        files.write_image_folder(root)
        (root / "train" / "cat" / name).write_bytes(data())
        return lambda: load(files.config("folder", root))

    return write


def png_bytes(size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "PNG")
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with its checksum right."""
    whole = png_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def flipped_png() -> bytes:
    whole = bytearray(png_bytes(64))
    whole[len(whole) // 2] ^= 0xFF
    return bytes(whole)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n"
IMAGES = {
    "not an image": ("99.png", lambda: b"MZ\x90 a program"),
    "empty image": ("99.jpg", lambda: b""),
    "truncated": ("99.png", lambda: png_bytes(64)[:-30]),
    "flipped byte": ("99.png", flipped_png),
    "absurdly large": ("99.png", lambda: png_of(60_000, 60_000)),
    "absurdly large, decoder's own limit": ("99.png", lambda: png_of(2**31 - 1, 2**31 - 1)),
    "absurdly wide": ("99.png", lambda: png_of(100_000_000, 1)),
    "of no size": ("99.png", lambda: png_of(0, 0)),
    "a program for a printer": ("99.png", lambda: EPS),
    "a pickle": ("99.bmp", lambda: pickle.dumps(Runs(print, "harm"))),
}


# Checkpoints --------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def weights(**changed: Any) -> dict[str, Any]:
    return dict(net().state_dict()) | {k.replace("_at_", "."): v for k, v in changed.items()}


def in_checkpoint(write: Callable[[Path], object], name: str = "w.pt") -> Callable[[Path], Call]:
    def prepare(root: Path) -> Call:
        path = root / name
        write(path)
        return lambda: fit(net(), read_weights(path), path)

    return prepare


def of(content: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content() if callable(content) else content, path)


def endless() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def compressed(path: Path) -> None:
    """An honest file with a member of zeros packed next to the weights."""
    buffer = io.BytesIO()
    torch.save(weights(), buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def harmful_zip(path: Path) -> None:
    """Code in the pickle inside a file of torch's present format."""
    buffer = io.BytesIO()
    torch.save(weights(), buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            harm = info.filename.endswith("data.pkl")
            new.writestr(info.filename, by_eval(path.parent) if harm else old.read(info))


def long_names() -> dict[str, Any]:
    return {("x" * 100_000) + str(k): torch.ones(1) for k in range(20)}


def safetensors_lie(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**50) + b"{}")


def safetensors_cut(path: Path) -> None:
    safetensors.torch.save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-8])


NAN = torch.tensor([1.0, float("nan"), 1.0])
CHECKPOINTS = {
    "code by reduce": in_checkpoint(lambda path: path.write_bytes(by_reduce(path.parent))),
    "code by eval": in_checkpoint(lambda path: path.write_bytes(by_eval(path.parent))),
    "code by torch.save": in_checkpoint(of(lambda: {"w": Runs(print, "harm")})),
    "code in the archive": in_checkpoint(harmful_zip),
    "a whole module": in_checkpoint(of(net)),
    "compressed": in_checkpoint(compressed),
    "wrappers without end": in_checkpoint(of(endless)),
    "wrong keys": in_checkpoint(of({"a": torch.ones(1)})),
    "endless names": in_checkpoint(of(long_names)),
    "wrong shape": in_checkpoint(of(weights(**{"0_at_bias": torch.ones(4)}))),
    "whole numbers": in_checkpoint(of(weights(**{"0_at_bias": torch.ones(3, dtype=torch.int64)}))),
    "complex": in_checkpoint(of(weights(**{"0_at_bias": torch.ones(3, dtype=torch.complex64)}))),
    "sparse": in_checkpoint(of(weights(**{"0_at_bias": torch.ones(3).to_sparse()}))),
    "without values": in_checkpoint(of(weights(**{"0_at_bias": torch.ones(3, device="meta")}))),
    "NaN": in_checkpoint(of(weights(**{"1_at_running_var": NAN}))),
    "infinite once cast": in_checkpoint(
        of(weights(**{"0_at_bias": torch.full((3,), 1e300, dtype=torch.float64)}))
    ),
    "a value that claims all memory": in_checkpoint(
        of(weights(extra=torch.ones(1).expand(2**40), **{"0_at_bias": torch.ones(1).expand(2**40)}))
    ),
    "empty": in_checkpoint(lambda path: path.write_bytes(b"")),
    "safetensors truncated": in_checkpoint(safetensors_cut, "w.safetensors"),
    "safetensors header lies": in_checkpoint(safetensors_lie, "w.safetensors"),
    "a pickle called safetensors": in_checkpoint(
        lambda path: path.write_bytes(by_eval(path.parent)), "w.safetensors"
    ),
    "a folder": in_checkpoint(lambda path: path.mkdir()),
}


def dangling(root: Path) -> Call:
    """Links that lead nowhere, or to what never ends, are no files of a data set."""
    folder = files.write_cifar(root, "cifar10")
    for name, target in (("data_batch_1", "nowhere"), ("data_batch_2", "/dev/zero")):
        (folder / name).unlink()
        (folder / name).symlink_to(target)
    return lambda: load(files.config("cifar10", root))


def odd_image(make: Callable[[Path], object]) -> Callable[[Path], Call]:
    """Something under an image's name that is no file; opening a pipe would wait for ever."""

    def write(root: Path) -> Call:
        files.write_image_folder(root)
        make(root / "train" / "cat" / "99.png")
        return lambda: load(files.config("folder", root))

    return write


ODD_IMAGES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to no end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
}

CASES: dict[str, Callable[[Path], Call]] = {
    **{f"cifar: {name}": in_cifar(body) for name, body in PICKLES.items()},
    **{f"imagenet32: {n}": in_imagenet(PICKLES[n]) for n in ("by_eval", "memo_bomb", "truncated")},
    **{f"npz: {name}": in_npz(damage) for name, damage in NPZ.items()},
    **{f"tar: {name}": in_tar(make) for name, make in TARS.items()},
    **{f"idx: {name}": in_idx(*case) for name, case in IDX.items()},
    **{f"image: {name}": in_folder(*case) for name, case in IMAGES.items()},
    **{f"checkpoint: {name}": case for name, case in CHECKPOINTS.items()},
    **{f"image: {name}": odd_image(make) for name, make in ODD_IMAGES.items()},
    "links": dangling,
}


@pytest.mark.parametrize("name", CASES)
def test_harm_is_one_clear_message(name: str, tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    call = CASES[name](root)
    before = sorted(tmp_path.rglob("*"))
    reset_peak_memory(CPU)
    started = peak_memory_mb(CPU)
    with pytest.raises((DataDamaged, DataMissing, BadCheckpoint)) as error:
        call()
    assert peak_memory_mb(CPU) - started < MOST_MB
    message = str(error.value)
    assert str(root) in message
    assert len(message) < 1500
    assert "\n\n" not in message
    assert "weights_only" not in message  # torch's advice is to run what is in the file
    assert sorted(tmp_path.rglob("*")) == before
    assert not (root / CANARY).exists()


@pytest.mark.parametrize("name", [name for name in PICKLES if name.startswith("by_")])
def test_the_payloads_are_what_they_claim(name: str, tmp_path: Path) -> None:
    """Each names something that is no part of an array: found without running it."""
    data = PICKLES[name](tmp_path)
    names = [op.name for op, _, _ in pickletools.genops(data)]
    asked = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "PERSID", "BINPERSID"}
    assert asked & set(names)


def test_the_canary_works(tmp_path: Path) -> None:
    pickle.loads(by_reduce(tmp_path))  # noqa: S301
    assert (tmp_path / CANARY).exists()


def test_there_are_at_least_forty() -> None:
    assert len(CASES) >= 40
