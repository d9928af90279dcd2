"""What view banks of the size of ImageNet-32 take: disk, memory and time, without a GPU.

    python -m benchmarks.large_bank [--images 1280000] [--real 24] [--folder FOLDER]
    python -m benchmarks.large_bank --logits 20 --features int8   # bank.logits, bank.features

writes the parts of the banks of two teachers as a run finds them: the first `--real` parts of each
hold random numbers, the others are sparse files of zeros, which take no disk. Then it maps them as
a run does (every part is read once and checked), and reads batches of rows of the real parts: from
the disk and from the system's cache, each with and without reading ahead, and from tables that are
held in memory.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple, cast

import safetensors.torch
import torch
from torch import nn

from benchmarks.shown import spread, table
from pipeline.config import RuntimeConfig
from pipeline.session import Session
from pipeline.stages.bank_parts import CHUNKS_A_PART, part_name
from pipeline.stages.view_bank import in_bytes, view_bank
from pipeline.storage.atomic import sha256
from pipeline.storage.run_record import BankRecord
from pipeline.storage.run_store import Store
from pipeline.tracking.target import TrackingTarget
from trainers.bank_codes import BankConfig, Codes
from trainers.data import DataConfig, Images, TrainingData
from trainers.loop import peak_memory_mb, reset_peak_memory
from trainers.numerics import Numerics
from trainers.read_ahead import Reads, reading_ahead
from trainers.view_bank import (
    BANK_CHUNK,
    Bank,
    Rows,
    ViewOutputs,
    assemble,
    bank_bytes,
    packed,
)

CPU, PART = torch.device("cpu"), CHUNKS_A_PART * BANK_CHUNK
SIZE, VAL, BATCH = 32, 1000, 128
CAPTION = """\
View banks of {images:,} images × {views} views, {classes} classes, pooled widths {widths}, \
bank.logits={kept.logits}, bank.features={kept.features}; {real} parts of each bank, {real_size}, \
are real, the others sparse. Writing: a part of random numbers, with its checksum, without the \
teacher's forward pass; all: the median times all parts. Mapping: all parts read once and checked. \
Memory: the most that the process held beyond what it held before; own memory is what is no page \
of a file: the system takes those back when it needs them. Not run on a GPU."""
READS = """\
What a step waits for a batch of {batch} rows of both banks (logits and pooled features, raised to \
float32) from the real parts, where the rest of it takes {step:g} ms, in which the host is idle; \
milliseconds, median (least … largest) of {rounds}. The lines of the disk read different parts."""


class Sizes(NamedTuple):
    """Sizes of the banks."""

    images: int
    views: int
    classes: int
    widths: list[int]
    real: int
    kept: BankConfig

    @property
    def codes(self) -> Codes:
        return Codes.of(self.kept, self.classes)

    @property
    def rows(self) -> int:
        return self.images * self.views

    @property
    def parts(self) -> int:
        return -(-self.rows // PART)

    def bytes(self, rows: int) -> int:
        """Of both banks."""
        return sum(bank_bytes(rows, self.classes, width, self.codes) for width in self.widths)


def main() -> None:
    options = parse()
    widths = [int(width) for width in options.widths.split(",")]
    most = -(-options.images * options.views // PART)
    kept = options.logits if options.logits == "all" else int(options.logits)
    sizes = Sizes(
        *(options.images, options.views, options.classes, widths, min(options.real, most)),
        BankConfig(kept, options.features),
    )
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as name:
        session = Session(
            RuntimeConfig(), Store(Path(name) / "runs"), cast(TrackingTarget, None), CPU
        )
        data = sparse_images(Path(name), sizes.images)
        writing = [seconds for width in widths for seconds in write(session.store, sizes, width)]
        began = time.process_time()
        with memory() as used:
            banks = [read(session, data, sizes, width) for width in widths]
        mapping = time.process_time() - began
        print(table(caption(sizes), *of_disk(sizes, writing, mapping, used)))
        os.sync()
        for path in session.store.root.rglob("part-*"):
            forget(path)
        mapped = [bank.train for bank in banks]
        rows = min(sizes.real * PART, sizes.rows)
        first, second, whole = range(rows // 2), range(rows // 2, rows), range(rows)
        times = {"disk": timed(mapped, first, options)}
        times["disk, read ahead"] = timed(mapped, second, options, ahead=True)
        held = [in_memory(one, rows) for one in mapped]  # which reads them all
        times["cache"] = timed(mapped, whole, options)
        times["cache, read ahead"] = timed(mapped, whole, options, ahead=True)
        times["memory"] = timed(held, whole, options)
    text = READS.format(batch=BATCH, rounds=options.rounds, step=options.step)
    print(table(text, ["from", "ms"], [[name, spread(ms)] for name, ms in times.items()]))


def caption(sizes: Sizes) -> str:
    return CAPTION.format(
        images=sizes.images,
        views=sizes.views,
        classes=sizes.classes,
        widths=sizes.widths,
        kept=sizes.kept,
        real=sizes.real,
        real_size=in_bytes(sizes.bytes(min(sizes.rows, sizes.real * PART))),
    )


def of_disk(
    sizes: Sizes, writing: list[float], mapping: float, used: list[float]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of disk, memory and the time of whole banks."""
    whole = median(writing) * sizes.parts * len(sizes.widths)
    found = {
        "disk": in_bytes(sizes.bytes(sizes.rows)),
        "parts of each bank": f"{sizes.parts}",
        "writing a part, s of CPU": spread(writing),
        "writing all, s of CPU": f"{whole:.0f}",
        "mapping all, s of CPU": f"{mapping:.0f}",
        "memory while mapping, MiB": f"{used[0]:.0f}",
        "own memory afterwards, MiB": f"{used[1]:.0f}",
    }
    return ["", ""], [list(item) for item in found.items()]


def sparse_images(root: Path, count: int) -> TrainingData:
    """Mapped training images without content, and a few validation images."""
    path, shape = root / "pixels.u8", (count, 3, SIZE, SIZE)
    path.touch()
    os.truncate(path, count * 3 * SIZE * SIZE)
    flat = torch.from_file(str(path), shared=False, size=count * 3 * SIZE**2, dtype=torch.uint8)
    labels = torch.zeros(count, dtype=torch.long)
    val = Images(flat[: VAL * 3 * SIZE**2].view(VAL, *shape[1:]), labels[:VAL], "val")
    return TrainingData(Images(flat.view(shape), labels, "train", mapped=True), val)


def write(store: Store, sizes: Sizes, width: int) -> Iterator[float]:
    """The bank of a width in the store; gives the seconds of each real part."""
    folder, digests = store.run("bank", f"width{width}"), list[str]()
    shape = sizes.classes, width
    for number in range(sizes.parts):
        count, name = min(PART, sizes.rows - number * PART), part_name(number)
        if number < sizes.real:
            rows = ViewOutputs(*(torch.rand(count, columns).half() for columns in shape))
            tensors = packed(rows, sizes.codes)._asdict()
            began = time.process_time()
            digests.append(folder.save_tensors(name, tensors))
            yield time.process_time() - began
        else:
            part = zeros(count, *shape, sizes.kept.logits, sizes.kept.features)
            path = folder.path / f"{name}.{part.digest}.safetensors"
            path.write_bytes(part.head)
            os.truncate(path, part.size)
            digests.append(part.digest)
    val = ViewOutputs(*(torch.zeros(VAL, columns).half() for columns in shape))._asdict()
    record = BankRecord(digests, folder.save_tensors("val", val), 0.0, f"bank-{width}")
    folder.write_json("bank", record.to_json())


class Zeros(NamedTuple):
    """A file of tensors that are zero: its start, its bytes in all, its digest."""

    head: bytes
    size: int
    digest: str


@cache
def zeros(rows: int, classes: int, width: int, logits: int | str, features: str) -> Zeros:
    codes = Codes.of(BankConfig(logits, features), classes)
    stored = packed(ViewOutputs(torch.zeros(1, classes), torch.zeros(1, width)), codes)
    tensors = {name: one.new_zeros(rows, one.shape[1]) for name, one in stored._asdict().items()}
    data = safetensors.torch.save(tensors)
    head = 8 + int.from_bytes(data[:8], "little")
    return Zeros(data[:head], len(data), sha256(data))


def read(session: Session, data: TrainingData, sizes: Sizes, width: int) -> Bank:
    """The bank as a run maps it."""
    config = DataConfig(
        image_size=SIZE, channels=3, classes=sizes.classes, views=sizes.views, crop_pad=4, flip=True
    )
    nothing, tables = nn.Identity(), session.store.root / "tables"
    return view_bank(
        *(session, f"width{width}", f"bank-{width}", nothing, data, config, Numerics(), tables),
        sizes.kept,
    )[0]


@contextmanager
def memory() -> Iterator[list[float]]:
    """MiB beyond those before: the most in all, and what is the process's own afterwards."""
    found: list[float] = []
    reset_peak_memory(CPU)
    before, own = peak_memory_mb(CPU), own_mb()
    yield found
    found += [peak_memory_mb(CPU) - before, own_mb() - own]


def own_mb() -> float:
    """MiB of the process that are not pages of a file."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def forget(path: Path) -> None:
    """Let the system drop a file from its cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_memory(mapped: Rows, rows: int) -> Rows:
    """The first rows, held."""
    parts = (slice(at, min(at + PART, rows)) for at in range(0, rows, PART))
    return assemble((ViewOutputs(mapped.logits[p], mapped.pooled[p]) for p in parts), rows, CPU)


def timed(
    banks: list[Rows], rows: range, options: argparse.Namespace, *, ahead: bool = False
) -> list[float]:
    """Milliseconds of reading a batch, each of other rows."""
    plan = torch.randint(rows.start, rows.stop, (options.rounds, BATCH))
    tables = [table for bank in banks for table in (bank.logits, bank.pooled)] if ahead else []
    found = []
    with reading_ahead([Reads(table, plan) for table in tables]):
        for row_B in plan:
            time.sleep(options.step / 1000)
            began = time.perf_counter()
            for bank in banks:
                bank.at(row_B)
            found.append(1000 * (time.perf_counter() - began))
    return found


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_bank", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=int, default=1_280_000, help="training images")
    parser.add_argument("--views", type=int, default=4, help="views of an image")
    parser.add_argument("--classes", type=int, default=1000, help="logits of a teacher")
    parser.add_argument("--widths", default="512,640", help="pooled widths of the teachers")
    parser.add_argument("--logits", default="all", help="bank.logits")
    parser.add_argument("--features", default="float16", help="bank.features")
    parser.add_argument("--real", type=int, default=24, help="parts of each bank with numbers")
    parser.add_argument("--rounds", type=int, default=200, help="batches that are timed")
    parser.add_argument("--step", type=float, default=20.0, help="the rest of a step, ms")
    parser.add_argument("--folder", help="write below this folder (null: the system's temporary)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
