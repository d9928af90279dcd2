"""The configuration of an experiment as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trainers.bank_codes import BankConfig
from trainers.data import DataConfig
from trainers.data.class_overlap import class_lists
from trainers.distillation.config import BudgetConfig, StudentConfig
from trainers.finetune import TeacherConfig
from trainers.mixing import MixConfig
from trainers.numerics import Numerics
from trainers.optim import StudentOptimConfig
from trainers.options import option


@dataclass
class BenchConfig:
    """Values that depend on the problem, besides data, networks and budget."""

    name: str = option("digits", "name of the bench", identity=False)
    enable_kd_after_syn_acc: float = option(
        0.65, "gate of the B-Step, the default of method.enable_kd_after_syn_acc", low=0, high=1
    )
    teacher_weights: list[float] | None = option(
        None, "weights of the teachers' average, the default of method.teacher_weights"
    )
    tau_syn: float = option(
        4.0, "temperature of the fusion's targets, the default of method.tau_syn", low=1e-2
    )


@dataclass
class RuntimeConfig:
    """Options that cannot change results; they are never part of a run's identity."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1 …")
    graph: str = option(
        "auto",
        "auto: on a GPU, steps of training as CUDA graphs, one launch each, where that is "
        "possible; off: kernel by kernel",
        choices=("auto", "off"),
    )
    ranks: int = option(
        1,
        "processes (ranks) that train one run together, each on a GPU of its own or on CPU cores; "
        "torchrun or srun starts as many",
        low=1,
    )
    threads: int | None = option(None, "CPU threads (null: torch's choice)", low=1)
    store: str = option("store", "folder of checkpoints, weights and view banks", path=True)
    experiment: str | None = option(
        None, "MLflow experiment (null: the launch's, else MLFLOW_EXPERIMENT_NAME, else asib)"
    )
    commit_every_s: float = option(5.0, "least seconds between two checkpoints", low=0)
    heartbeat_s: float = option(3.0, "seconds between two heartbeats of a lease", low=0.05)
    expiry_s: float = option(
        30.0, "seconds without a heartbeat after which a lease is taken over", low=0.2
    )
    sync_timeout_s: float = option(
        30.0, "seconds to wait at the end for a tracking server that cannot be reached", low=0
    )
    log_model: bool = option(True, "log the student as an MLflow model")
    register: str | None = option(
        None, "name in MLflow's model registry under which the student is registered"
    )
    retry_s: float = option(15.0, "seconds between two tries to reach the tracking server", low=0.1)
    device_budget: str | None = option(
        None,
        "largest memory of training images and view banks on the device, such as 2GB; above it "
        "they stay in mapped files of the store (null: half of the device's memory)",
    )


@dataclass
class Config:
    """A whole experiment: one teacher set, one method, one student, one seed."""

    cfg: str = option("L3", "rung of the ladder")
    seed: int = option(0, "seed of initial weights, order, crops and mixed images", low=0)
    select: str = option(
        "best", "best: epoch of the best validation accuracy; last", choices=("best", "last")
    )
    overlap: int | None = option(
        None,
        "percent of the classes that all teachers are trained on; the other classes are shared "
        "out among them (null: 100, every teacher has all)",
        low=0,
        high=100,
        identity=False,
    )
    overlap_seed: int = option(
        0, "seed of the shuffle of classes before `overlap` shares them out", low=0, identity=False
    )
    bench: BenchConfig = option(BenchConfig, "the problem")
    data: DataConfig = option(DataConfig, "images")
    teacher: dict[str, TeacherConfig] = option({}, "teachers, by number")
    student: StudentConfig = option(StudentConfig, "student")
    method: Any = option(dict, "method")
    mix: MixConfig = option(MixConfig, "mixing of the B-Step")
    optim: StudentOptimConfig = option(StudentOptimConfig, "the student's optimiser")
    budget: BudgetConfig = option(BudgetConfig, "epochs")
    numerics: Numerics = option(Numerics, "precision and memory format")
    bank: BankConfig = option(BankConfig, "what view banks keep")
    runtime: RuntimeConfig = option(RuntimeConfig, "device, paths, cadence")

    def teachers(self) -> list[TeacherConfig]:
        """The teachers in order of their numbers, each with the classes that it is trained on
        (None where that is all of them)."""
        found = [self.teacher[name] for name in sorted(self.teacher, key=int)]
        lists = [teacher.classes for teacher in found]
        if found and self.overlap is not None:
            lists = [*class_lists(self.data.classes, self.overlap, len(found), self.overlap_seed)]
        some = [sorted(own) if own and len(own) < self.data.classes else None for own in lists]
        return [replace(t, classes=own) for t, own in zip(found, some, strict=True)]

    @property
    def specialised(self) -> bool:
        """Whether a teacher is trained on some classes only."""
        return any(teacher.classes for teacher in self.teachers())

    @property
    def rung(self) -> str:
        """The name of a run in tables: the rung for ASIB's ladder, else the method."""
        return self.cfg if self.method.name == "asib" else self.method.name
