"""Plain distillation next to timm's task and torchdistill's loss, on the same networks and tensors:
the pairs of the benches `sota_*`.

timm: `timm.task.LogitDistillationTask`. torchdistill: its `KDLoss` with both networks run as its
training box runs them, without the hooks and configuration around them (which cost extra).
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.apart import apart
from benchmarks.b_step import interleaved
from benchmarks.setting import Setting
from benchmarks.shown import at_least, ratios, spread, table
from benchmarks.synthetic import CLASSES, PIXELS, b_steps, config, random_data, random_teacher
from pipeline.config import compose
from trainers import models
from trainers.data import Images
from trainers.methods.base import Dims, StepPosition, TeacherOutputs
from trainers.methods.kd import Kd, KdConfig
from trainers.mixing import UNMIXED
from trainers.models import outputs
from trainers.models.freezing import freeze
from trainers.numerics import Numerics
from trainers.optim import build_optimiser

PAIRS = ("sota_resnet8x4", "sota_shufflenet_v2", "sota_mobilenet_v2")  # benches
OURS = "this project"
LAYOUT = Numerics().layout()
EPOCH_IMAGES = 512  # of the epoch from images to weights
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
BARE = """\
Bare step of kd (CE 0.1, KD 0.9, tau 4), images per second: forward, loss, backward and optimiser \
step of {student} from {teacher} on a batch of {batch} float images of {pixels} px that lie \
ready-made on the device; the same weights, tensors and optimiser for all. The others run the \
teacher in every step; this project reads its logits from the view bank, and is shown with a \
live teacher too, both in its memory format (channels last). {rounds} rounds of {steps} steps, \
interleaved; median (least … largest); ratios within a round. {missing}Target: at least as fast \
as the faster of the others."""
END_TO_END = """\
An epoch of kd from stored images to weights, images per second: {images} images of {pixels} px, \
batch {batch}, random crop and flip, {student} from {teacher}. Others: a torch DataLoader without \
workers, PIL transforms of torchvision, live teacher. This project: its B-Step as it is, bank made \
beforehand (once for all runs and seeds), so that it saves the loader's and the teacher's share. \
Each in a process of its own. {rounds} rounds, interleaved; median (least … largest); ratios \
within a round. Target: at least 3.00 of the faster of the others."""


class Pair(NamedTuple):
    """Student and teacher by their names in the registry."""

    student: str
    teacher: str

    @classmethod
    def of(cls, bench: str) -> Pair:
        """The student and the first teacher of a bench."""
        config = compose([f"bench={bench}", "method=kd"])
        return cls(config.student.model, config.teacher["0"].model)

    def networks(self, device: torch.device) -> tuple[nn.Module, nn.Module]:
        """Student and frozen teacher, with the three attributes that timm.task reads."""
        torch.manual_seed(0)
        student = models.build(self.student, CLASSES, PIXELS)
        teacher = freeze(models.build(self.teacher, CLASSES, PIXELS))
        for net in (student, teacher):
            described: Any = net
            described.num_classes, described.in_chans = CLASSES, 3
            described.pretrained_cfg = {"mean": MEAN, "std": STD}
        return student.to(device), teacher.to(device)


Step = Callable[[Tensor, Tensor], None]  # one optimiser step on images [B, 3, H, W] and labels [B]


def bare(setting: Setting, pair: Pair, batch: int, rounds: int, steps: int) -> str:
    """The table of bare steps."""
    student, teacher = pair.networks(setting.device)
    images = torch.randn(batch, 3, PIXELS, PIXELS, device=setting.device)
    labels = torch.arange(batch, device=setting.device) % CLASSES
    with torch.no_grad():
        taught = teacher(images)
    contenders = {
        OURS: _ours(student, lambda x: taught),
        f"{OURS}, live": _ours(student, _live(teacher)),
        **{name: make(student, teacher) for name, make in others().items()},
    }

    def several(step: Step) -> Callable[[], int]:
        def run() -> int:
            for _ in range(steps):
                step(images, labels)
            return steps * batch

        return run

    speeds = interleaved(setting, {n: several(s) for n, s in contenders.items()}, rounds + 2)
    missing = "" if _torchdistill() else "torchdistill is not installed and left out. "
    caption = BARE.format(
        **pair._asdict(), batch=batch, pixels=PIXELS, rounds=rounds, steps=steps, missing=missing
    )
    return _table(caption, speeds, 1.0)


def end_to_end(setting: Setting, pair: Pair, batch: int, rounds: int) -> str:
    """The table of whole epochs."""
    makers = {name: partial(_fed, name, pair, batch, setting.device) for name in others()}
    with apart({OURS: partial(_banked, pair, batch, setting.device), **makers}) as contenders:
        speeds = interleaved(setting, contenders, rounds + 2)
    caption = END_TO_END.format(
        **pair._asdict(), images=EPOCH_IMAGES, pixels=PIXELS, batch=batch, rounds=rounds
    )
    return _table(caption, speeds, 3.0)


def _banked(pair: Pair, batch: int, device: torch.device) -> Callable[[], int]:
    """An epoch of this project's own B-Step."""
    data = random_data(EPOCH_IMAGES, device)
    teachers = [random_teacher(pair.teacher, data)] * 2  # of two as any bench has
    run, _ = b_steps(config("kd", pair.student, batch), data, teachers, EPOCH_IMAGES // batch)
    return run


def _fed(name: str, pair: Pair, batch: int, device: torch.device) -> Callable[[], int]:
    """An epoch of another project's step, fed by an ordinary loader."""
    step = others()[name](*pair.networks(device))
    pictures = Pictures(random_data(EPOCH_IMAGES, device).train)
    loader = DataLoader(pictures, batch, shuffle=True, drop_last=True)

    def epoch() -> int:
        for images, labels in loader:
            step(images.to(device), labels.to(device))
        return len(loader) * batch

    return epoch


def _table(caption: str, speeds: dict[str, list[float]], target: float) -> str:
    rivals = [values for name, values in speeds.items() if not name.startswith(OURS)]
    fastest = [max(values) for values in zip(*rivals, strict=True)]
    rows = []
    for name, values in speeds.items():
        relative = ratios(values, fastest)
        met = at_least(target, relative) if name == OURS else ""
        rows.append([name, spread(values, 0), spread(relative), met])
    return table(caption, ["", "images/s", "speed / faster other", "target"], rows)


# One optimiser step ---------------------------------------------------------------------------


def _ours(student: nn.Module, teach: Callable[[Tensor], Tensor]) -> Step:
    net, method = _placed(student).train(), Kd(KdConfig(), Dims(1, (1,), CLASSES))
    optimiser = _optimiser(net)

    def step(images: Tensor, labels: Tensor) -> None:
        images = images.contiguous(memory_format=LAYOUT)
        with torch.no_grad():
            teacher_outputs = TeacherOutputs(teach(images)[None])
        terms = method.student_terms(
            outputs(net, images), teacher_outputs, labels, UNMIXED, StepPosition(0, 1)
        ).losses
        _learn(optimiser, torch.stack(list(terms.values())).sum())

    return step


def _live(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    net = _placed(teacher)
    return lambda images: outputs(net, images).logits


def _placed(net: nn.Module) -> nn.Module:
    """A copy as this project lays out its networks."""
    return models.place(copy.deepcopy(net), next(net.parameters()).device, LAYOUT)


def others() -> dict[str, Callable[[nn.Module, nn.Module], Step]]:
    """The same step by other projects' code, of a copy of the student and of the teacher."""
    return {"timm.task": _timm} | ({"torchdistill": _distill_box} if _torchdistill() else {})


def _timm(student: nn.Module, teacher: nn.Module) -> Step:
    from timm.task import LogitDistillationTask

    net = copy.deepcopy(student).train()
    task = LogitDistillationTask(
        net,
        teacher,
        nn.CrossEntropyLoss(),
        distill_loss_weight=0.9,
        task_loss_weight=0.1,
        temperature=4.0,
        device=next(net.parameters()).device,
        verbose=False,
    )
    task.train()
    optimiser = _optimiser(net)
    return lambda images, labels: _learn(optimiser, task(images, labels)["loss"])


def _torchdistill() -> bool:
    return importlib.util.find_spec("torchdistill") is not None


def _distill_box(student: nn.Module, teacher: nn.Module) -> Step:
    from torchdistill.losses.mid_level import KDLoss

    net = copy.deepcopy(student).train()
    loss: Any = KDLoss(".", "output", ".", "output", temperature=4.0, alpha=0.1, beta=0.9)
    optimiser = _optimiser(net)

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.no_grad():
            taught = {".": {"output": teacher(images)}}
        _learn(optimiser, loss({".": {"output": net(images)}}, taught, labels))

    return step


def _optimiser(net: nn.Module) -> torch.optim.Optimizer:
    return build_optimiser(config("kd", "resnet8x4", 64).optim, net.parameters())


def _learn(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


class Pictures(Dataset[tuple[Tensor, int]]):
    """The images as an ordinary project loads them: PIL, and torchvision's transforms."""

    def __init__(self, images: Images) -> None:
        from torchvision import transforms

        self.pixels = images.pixels.permute(0, 2, 3, 1).cpu().numpy()
        self.labels = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(PIXELS, padding=4, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]
