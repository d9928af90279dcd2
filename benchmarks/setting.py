"""What is measured: a bench's data on the device, its rungs, and teachers for timing only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch

from pipeline.config import compose
from pipeline.identity import distill_config, finetune_config, splits
from trainers.data import TrainingData
from trainers.distillation.config import DistillConfig
from trainers.distillation.stage_cache import network_bank
from trainers.distillation.state import DistillState, StepInputs, Teacher
from trainers.finetune import FinetuneState
from trainers.models import freezing

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
