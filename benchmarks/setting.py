"""What is measured: a bench's data on the device, its rungs, and teachers for timing only."""

from __future__ import annotations

import platform
import re
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.shown import WIDTH
from pipeline.config import compose
from pipeline.identity import distill_config, finetune_config, splits
from pipeline.stages.provenance import versions
from trainers.data import TrainingData
from trainers.distillation.config import DistillConfig
from trainers.distillation.stage_cache import network_bank
from trainers.distillation.state import DistillState, StepInputs, Teacher
from trainers.finetune import FinetuneState
from trainers.models import freezing

_CPU_INFO = Path("/proc/cpuinfo")
RUNGS = ("CE", "KD", "L0", "L1", "L2", "L3", "L4")


class Run(NamedTuple):
    """A distillation before its first epoch. `teachers` is empty where none is read."""

    config: DistillConfig
    data: TrainingData
    teachers: list[Teacher]
    state: DistillState

    def inputs(self) -> StepInputs:
        """What the run's epochs read."""
        return StepInputs.prepare(self.config, self.data, self.teachers, self.state)


@dataclass(frozen=True)
class Setting:
    """One bench at one budget on one device."""

    bench: str
    budget: str
    train_limit: int | None
    device: torch.device
    cpu_clock: bool = False  # measure CPU seconds of this process, for a machine that is shared

    def overrides(self, rung: str) -> list[str]:
        """What a command line would say. The gate opens at any accuracy, so that synergy targets
        are really used."""
        limit = "null" if self.train_limit is None else str(self.train_limit)
        return [
            f"bench={self.bench}",
            f"cfg={rung}",
            f"budget={self.budget}",
            "method.enable_kd_after_syn_acc=0",
            f"data.train_limit={limit}",
        ]

    def config(self, rung: str) -> DistillConfig:
        """The distillation of a rung."""
        return distill_config(compose(self.overrides(rung)))

    def data(self) -> TrainingData:
        """Training and validation images on the device.

        Raises:
            DataMissing, DataDamaged
        """
        found = splits(self.config("CE").data)
        return TrainingData(found.train.to(self.device), found.val.to(self.device))

    def run(self, rung: str, data: TrainingData, teachers: list[Teacher]) -> Run:
        """A new run of a rung, with the teachers that it reads."""
        config = self.config(rung)
        needed = teachers if config.method.reads_teachers() else []
        return Run(config, data, needed, DistillState.new(config, data, needed))

    def teachers(self, data: TrainingData) -> tuple[list[Teacher], float]:
        """The bench's teachers with initial weights and real view banks, and the seconds that the
        banks took. The time of nothing here depends on what a teacher knows."""
        config, inputs = compose(self.overrides("KD")), self.run("CE", data, []).inputs()
        found, seconds = [], 0.0
        for number in range(len(config.teacher)):
            fresh = FinetuneState.new(finetune_config(config, number), self.device)
            model = freezing.freeze(fresh.model)
            began = self.clock()
            bank = network_bank(inputs, model)
            seconds += self.clock() - began
            found.append(Teacher(model, bank))
        return found, seconds

    def clock(self) -> float:
        """Seconds, read when everything that the device was asked to do is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.cpu_clock else time.perf_counter()


def heading(setting: Setting, data: TrainingData) -> str:
    """Device, threads, versions, data, networks and budget."""
    config = setting.config("L2")
    packages = ", ".join(f"{name} {versions()[name]}" for name in ("python", "torch", "numpy"))
    threads = torch.get_num_threads()
    text = (
        f"Device: {device_name(setting.device)}, {threads} thread{'s' if threads > 1 else ''}, "
        f"{'CPU seconds of the process' if setting.cpu_clock else 'wall clock'}; {packages}. "
        f"Data: {setting.bench}, {len(data.train.labels)} training and {len(data.val.labels)} "
        f"validation images of {config.data.image_size} px, {config.data.views} views. Student: "
        f"{config.student.model}, batch {config.optim.batch}, {config.optim.name}, "
        f"{config.numerics.precision}, {config.numerics.memory_format}. Budget {setting.budget}: "
        f"{config.budget.student_epochs} B-Step and {config.budget.adapt_epochs} A-Step epochs."
    )
    return textwrap.fill(text, WIDTH) + "\n"


def device_name(device: torch.device) -> str:
    """The model of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    return f"CPU ({name[1] if name else platform.machine()})"
