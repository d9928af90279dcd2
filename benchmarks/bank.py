"""What view banks take: memory, and the time to read a batch from them.

    python -m benchmarks.bank [--images 50000] [--rounds 15]

makes the banks of two stand-in teachers, of pooled width 2048 and 768, on a synthetic set of the
size of CIFAR-100 as a run makes them, through a store (a temporary folder, deleted), and reads
batches from them in turn with training steps of resnet8x4.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.setting import Setting
from benchmarks.shown import at_most, ratios, spread, table
from pipeline.config import RuntimeConfig
from pipeline.session import Session
from pipeline.stages.view_bank import view_bank
from pipeline.storage.run_store import Store
from pipeline.tracking.target import TrackingTarget
from trainers import models
from trainers.data import DataConfig, Images, TrainingData
from trainers.data.views import Views
from trainers.loop import peak_memory_mb, reset_peak_memory
from trainers.numerics import Numerics
from trainers.optim import OptimConfig, build_optimiser
from trainers.view_bank import Bank

CLASSES, SIZE, BATCH, WIDTHS = 100, 32, 128, (2048, 768)
VAL_SHARE = 10  # one image in ten, next to the training images
READS = 20  # of one round: a single read is too short to time
WARM_UP = 2  # rounds that are not counted
MEMORY_CAPTION = """\
Memory of the view banks, MiB: {images} images of {size} px, {views} views, {classes} classes, \
pooled widths {widths}, float16. Making: the most that the process held beyond what it held \
before, its own padded copy of the images among it, with the parts written to a store and read \
back; holding: what it keeps. Numbers: what the tables themselves take. Target: the making of all \
at most 2 GB."""
TIME_CAPTION = """\
Reading a batch of {batch} rows (logits and pooled features of both teachers, raised to float32) \
next to a training step of resnet8x4 on as many images (views, forward, backward, SGD), \
{device}, {threads} thread(s). {rounds} rounds, in turn; median (least … largest); the share \
within a round, percent. Target: at most 2 %."""


class StandIn(nn.Module):
    """A net of some pooled width that costs nothing: 8 × 8 patches' means, mixed at random."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.mix = nn.Linear(3 * (SIZE // 8) ** 2, width)
        self.fc = nn.Linear(width, CLASSES)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        return F.relu(self.mix(F.avg_pool2d(x, 8).flatten(1)))[:, :, None, None]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.flatten(1)
        return pooled if pre_logits else self.fc(pooled)


class Memory(NamedTuple):
    """MiB: what the tables take, the most in making them, what was kept."""

    name: str
    numbers: float
    making: float
    holding: float


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    device = torch.device(options.device)
    setting = Setting("digits", "short", None, device, cpu_clock=False)  # for its clock alone
    config, numerics = recipe(), Numerics()
    data = synthetic(options.images, device)
    views = Views(data.train, config, numerics)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as name:
        banks, memory = make_banks(Path(name), data, config, numerics, device)
    caption = MEMORY_CAPTION.format(
        images=options.images, size=SIZE, views=config.views, classes=CLASSES, widths=WIDTHS
    )
    print(table(caption, ["", "numbers", "making", "holding", "target (GB)"], memory_rows(memory)))
    step, read = training_step(views), reader(banks, views)
    times = in_turn(setting, {"step": step, "read": read}, options.rounds)
    caption = TIME_CAPTION.format(
        batch=BATCH, device=device, threads=torch.get_num_threads(), rounds=options.rounds
    )
    print(table(caption, ["", "ms", "% of a step", "target"], time_rows(times)))


def recipe() -> DataConfig:
    """The views of CIFAR-100."""
    return DataConfig(
        image_size=SIZE,
        channels=3,
        classes=CLASSES,
        crop_pad=4,
        flip=True,
        mean=[0.5071, 0.4867, 0.4408],
        std=[0.2675, 0.2565, 0.2761],
    )


def synthetic(count: int, device: torch.device) -> TrainingData:
    """Noise with labels, `count` images to train on."""

    def images(n: int, digest: str) -> Images:
        pixels = torch.randint(256, (n, 3, SIZE, SIZE), dtype=torch.uint8)
        return Images(pixels, torch.arange(n) % CLASSES, digest).to(device)

    return TrainingData(images(count, "train"), images(count // VAL_SHARE, "val"))


def make_banks(
    root: Path, data: TrainingData, config: DataConfig, numerics: Numerics, device: torch.device
) -> tuple[list[Bank], list[Memory]]:
    """The banks, one after the other, each held while the next is made; the last row is all."""
    nowhere = cast(TrackingTarget, None)  # nothing is tracked
    session = Session(RuntimeConfig(), Store(root), nowhere, device)
    banks, memory, before = [], [], held_mb(device)
    highest = before
    for width in WIDTHS:
        model = StandIn(width).to(device).eval()
        start = held_mb(device)
        reset_peak_memory(device)
        bank, _ = view_bank(
            session, f"width{width}", f"bank-{width}", model, data, config, numerics
        )
        peak = peak_memory_mb(device)
        highest = max(highest, peak)
        banks.append(bank)
        memory.append(Memory(f"{width}", numbers(bank), peak - start, held_mb(device) - start))
    total = sum(row.numbers for row in memory)
    memory.append(Memory("both", total, highest - before, held_mb(device) - before))
    return banks, memory


def numbers(bank: Bank) -> float:
    """MiB of a bank's own tables."""
    return sum(t.nbytes for rows in bank for t in rows) / 2**20


def held_mb(device: torch.device) -> float:
    """MiB that the process holds now: on a GPU its tensors, on a CPU its resident set."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return psutil.Process().memory_info().rss / 2**20


def training_step(views: Views) -> Callable[[], None]:
    """One step of resnet8x4 with plain cross-entropy, on random rows."""
    student = models.build("resnet8x4", CLASSES, SIZE)
    student = models.place(student, views.device, Numerics().layout()).train()
    optimiser = build_optimiser(OptimConfig(name="sgd", lr=0.01), student.parameters())

    def step() -> None:
        rows = random_rows(views)
        loss = F.cross_entropy(student(views.batch(rows)), views.labels(rows))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def reader(banks: list[Bank], views: Views) -> Callable[[], None]:
    """Reads `READS` batches, each of other rows."""

    def read() -> None:
        for _ in range(READS):
            rows = random_rows(views)
            for bank in banks:
                bank.train.at(rows)

    return read


def random_rows(views: Views) -> Tensor:
    return torch.randint(views.rows, (BATCH,)).to(views.device)


def in_turn(
    setting: Setting, work: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every counted round of each."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(WARM_UP + rounds):
        for name, do in work.items():
            began = setting.clock()
            do()
            seconds[name].append(setting.clock() - began)
    return {name: values[WARM_UP:] for name, values in seconds.items()}


def memory_rows(memory: list[Memory]) -> list[list[str]]:
    rows = [[m.name, *(f"{value:.0f}" for value in m[1:]), ""] for m in memory]
    rows[-1][-1] = at_most(2.0, [memory[-1].making * 2**20 / 1e9])
    return rows


def time_rows(times: dict[str, list[float]]) -> list[list[str]]:
    read = [seconds / READS for seconds in times["read"]]
    percent = [100 * share for share in ratios(read, times["step"])]
    step_ms, read_ms = (spread([1000 * s for s in v], 2) for v in (times["step"], read))
    return [
        ["training step", step_ms, "", ""],
        ["reading a batch", read_ms, spread(percent), at_most(2.0, percent)],
    ]


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--rounds", type=int, default=15, help="counted steps and readings")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--folder", help="write below this folder (null: the system's temporary)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
