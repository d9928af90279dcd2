"""Small data sets written in the real formats."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainers.data import DataConfig

Dump = Callable[[dict[str, Any]], bytes]


def python2_pickle(content: dict[str, Any]) -> bytes:
    """Protocol 2 as Python 2's cPickle wrote CIFAR's files: text and array data are byte
    strings, which Python 3's pickle cannot write."""
    return b"\x80\x02" + _python2(content) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_python2(key) + _python2(item) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_python2, value)) + b"t"
    if isinstance(value, str | bytes):
        text = value.encode("latin1") if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(text)) + text
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray), value
    kind = (value.dtype.str[1:], 0, 1)
    state = b"(" + _python2(3) + _python2(value.dtype.str[0]) + b"NNN" + _python2(-1) * 2
    state += _python2(0) + b"t"
    dtype = b"cnumpy\ndtype\n" + _python2(kind) + b"R" + state + b"b"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _python2((0,))
    empty += _python2("b") + b"tR"
    return (
        empty
        + b"("
        + _python2(1)
        + _python2(value.shape)
        + dtype
        + b"\x89"
        + _python2(value.tobytes())
        + b"tb"
    )


def python3_pickle(protocol: int) -> Dump:
    return lambda content: pickle.dumps(content, protocol)


def before_numpy_2(dump: Dump) -> Dump:
    """The same with the module names of numpy 1 (in protocols that write names as lines)."""
    return lambda content: dump(content).replace(b"cnumpy._core.", b"cnumpy.core.")


DUMPS: dict[str, Dump] = {
    "python 2": python2_pickle,
    "protocol 0": python3_pickle(0),
    "protocol 2": python3_pickle(2),
    "protocol 2, numpy 1": before_numpy_2(python3_pickle(2)),
    "protocol 3": python3_pickle(3),
    "protocol 4": python3_pickle(4),
    "protocol 5": python3_pickle(5),
}


def rows(count: int, seed: int) -> np.ndarray:
    """[n, 3072] uint8."""
    return np.random.default_rng(seed).integers(256, size=(count, 3072), dtype=np.uint8)


def cifar_contents(name: str) -> dict[str, dict[str, Any]]:
    """File name → what it holds, with all the keys of the real ones; 20 images a class in the 10
    class form, 2 in the other."""
    if name == "cifar10":
        files = {
            f"data_batch_{k}": {
                "batch_label": f"training batch {k} of 5",
                "labels": [(i + k) % 10 for i in range(40)],
                "data": rows(40, k),
                "filenames": [f"image_{k}_{i}.png" for i in range(40)],
            }
            for k in range(1, 6)
        }
        files["test_batch"] = {"labels": [i % 10 for i in range(20)], "data": rows(20, 9)}
        names = [f"class {k}" for k in range(10)]
        meta = {"num_cases_per_batch": 40, "label_names": names, "num_vis": 3072}
        return files | {"batches.meta": meta}
    files = {
        part: {
            "fine_labels": [i % 100 for i in range(count)],
            "coarse_labels": [i % 20 for i in range(count)],
            "data": rows(count, count),
        }
        for part, count in (("train", 200), ("test", 100))
    }
    fine, coarse = ([f"{kind} {k}" for k in range(n)] for kind, n in (("fine", 100), ("big", 20)))
    return files | {"meta": {"fine_label_names": fine, "coarse_label_names": coarse}}


CIFAR_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
CIFAR_ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def cifar_bytes(name: str, dump: Dump = python2_pickle) -> dict[str, bytes]:
    return {file: dump(content) for file, content in cifar_contents(name).items()}


def write_cifar(root: Path, name: str, dump: Dump = python2_pickle) -> Path:
    """Unpacked below root; returns the folder."""
    folder = root / CIFAR_FOLDERS[name]
    folder.mkdir(parents=True)
    for file, data in cifar_bytes(name, dump).items():
        (folder / file).write_bytes(data)
    return folder


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A .tar.gz of files, or of ready-made headers without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_cifar_archive(root: Path, name: str, **extra: bytes | tarfile.TarInfo) -> Path:
    members = {f"{CIFAR_FOLDERS[name]}/{f}": d for f, d in cifar_bytes(name).items()}
    return write_tar(root / CIFAR_ARCHIVES[name], members | extra)


IMAGENET_FILES = [*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]


def imagenet_contents(classes: int = 10) -> dict[str, dict[str, Any]]:
    """30 images a batch; labels from 1."""
    found = {}
    for seed, file in enumerate(IMAGENET_FILES):
        labels = [(i + seed) % classes + 1 for i in range(30)]
        found[file] = {"data": rows(30, seed), "labels": labels, "mean": np.full(3072, 0.5)}
    return found


def write_imagenet(root: Path, form: str = "npz") -> dict[str, Path]:
    """As npz, or with one of `DUMPS`."""
    root.mkdir(parents=True, exist_ok=True)
    paths = {}
    for file, content in imagenet_contents().items():
        paths[file] = root / (f"{file}.npz" if form == "npz" else file)
        if form == "npz":
            np.savez_compressed(paths[file], **content)
        else:
            paths[file].write_bytes(DUMPS[form](content))
    return paths


def write_image_folder(
    root: Path,
    classes: tuple[str, ...] = ("cat", "dog"),
    parts: tuple[str, ...] = ("train", "test"),
) -> Path:
    """12 colour images a class, of different sizes, formats in turn."""
    draw = np.random.default_rng(0)
    for part in parts:
        for number, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(12):
                height, width = draw.integers(10, 40, size=2)
                pixels = draw.integers(256, size=(height, width, 3), dtype=np.uint8)
                pixels[..., number % 3] //= 2
                ending = ("png", "jpg", "bmp", "webp")[i % 4]
                Image.fromarray(pixels).save(folder / f"{i:02d}.{ending}")
    return root


def config(name: str, root: Path, **options: Any) -> DataConfig:
    """The values of conf/data for a set below root."""
    values = {
        "cifar10": {"image_size": 32, "channels": 3, "classes": 10},
        "cifar100": {"image_size": 32, "channels": 3, "classes": 100},
        "imagenet32": {"image_size": 32, "channels": 3, "classes": 10},
        "folder": {"image_size": 16, "channels": 3, "classes": 2},
        "fashion_mnist": {"image_size": 28, "channels": 1, "classes": 10},
    }[name]
    return DataConfig(**({"name": name, "root": str(root)} | values | options))
