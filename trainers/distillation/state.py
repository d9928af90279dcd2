"""State of a distillation run, and the inputs of its epochs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainers import models, targets
from trainers.data import TrainingData
from trainers.data.views import MAPPED, Normaliser, Views
from trainers.distillation.config import DistillConfig
from trainers.distillation.frozen_trunk import Trunk
from trainers.loop import Progress, top1
from trainers.methods import METHODS
from trainers.methods.alternating import AlternatingMethod
from trainers.methods.base import Dims, Method, StepPosition
from trainers.mixing import BatchSizes, EpochPlan, MixConfig, batch_sizes, plan_epoch
from trainers.models import freezing
from trainers.numerics import Numerics
from trainers.optim import build_optimiser, load_optimiser, saved_optimiser
from trainers.rng import seeded
from trainers.stacking import Stack
from trainers.step_graph import Graphs
from trainers.view_bank import Bank, TableOutputs


class Teacher(NamedTuple):
    """A frozen teacher and its view bank."""

    model: nn.Module
    bank: Bank


def best_teacher(data: TrainingData, teachers: list[Teacher]) -> int:
    """Number of the teacher with the best validation accuracy (the first of equals)."""
    if not len(data.val.labels):
        return 0
    accuracies = [top1(t.bank.val.logits, data.val.labels) for t in teachers]
    return accuracies.index(max(accuracies)) if accuracies else 0


def best_weighting(data: TrainingData, teachers: list[Teacher]) -> str:
    """The weighting of the teachers' logits whose combination has the best validation accuracy
    (equal weights first of equals)."""
    if not len(data.val.labels) or len(teachers) < 2:
        return "equal"
    logits_KMC = torch.stack([t.bank.val.logits.float() for t in teachers])
    labels = data.val.labels
    found = {
        name: top1(targets.combined_logits(logits_KMC, name), labels)
        for name in ("equal", *targets.SHARES)
    }
    return max(found, key=lambda name: found[name])


class PlannedEpoch(NamedTuple):
    """One epoch of the plan."""

    step: str  # "A" or "B"
    position: StepPosition

    @property
    def first(self) -> bool:
        return self.position.in_step == 0

    @property
    def last(self) -> bool:
        return self.position.in_step == self.position.step_total - 1


@dataclass
class DistillState:
    """Everything that changes during a run."""

    student: nn.Module
    method: Method
    teachers: list[nn.Module]  # own copies, where their blocks are tuned; else empty
    optimiser: torch.optim.Optimizer
    a_optimiser: torch.optim.Optimizer | None = None
    scaler: torch.amp.GradScaler | None = None  # of both, in float16
    ema: nn.Module | None = None  # an exponential average of the student, where it teaches too
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Any] = field(default_factory=dict)  # top1, epoch, weights of the student
    a_best: dict[str, Any] = field(default_factory=dict)  # top1, φ and teachers of this A-Step
    stage_student: dict[str, Tensor] = field(default_factory=dict)  # weights at the stage's start
    synergy_top1: float | None = None  # validation accuracy of the restored A-Step state
    synergy_ema: float | None = None
    gate_open: bool = False
    notes: dict[str, float] = field(default_factory=dict)  # of a step's start, to be logged
    pending_a_optimiser: dict[str, Any] | None = None  # saved moments, until the A-Step takes them
    queries: Bank | None = None  # of this stage's student; made when needed, never saved
    adapted: list[Bank] | None = None  # of the own teachers as they are; likewise
    trunks: list[Trunk | None] | None = None  # of the own teachers; likewise
    stack: Stack | None = None  # of all teachers, where the method reads it; likewise
    graphs: Graphs | None = None  # of the steps, on a GPU (None: they are run one by one)
    stop: Callable[[], bool] = lambda: False

    @classmethod
    def new(
        cls, config: DistillConfig, data: TrainingData, teachers: list[Teacher]
    ) -> DistillState:
        """Initial weights: student and method from streams of their own, so that every rung and
        method at one seed starts from the same student."""
        d, device = config.data, data.train.device
        with seeded(config.seed, "student"):
            student = models.build(
                config.student.model,
                d.classes,
                d.image_size,
                config.student.pretrained,
                in_chans=d.channels,
            )
        kind = METHODS[config.method.name]
        dims = Dims(
            models.pooled_dim(student),
            tuple(t.bank.width for t in teachers),
            d.classes,
            len(data.train.labels) + len(data.unlabelled.pixels if data.unlabelled else ()),
            best_teacher(data, teachers),
            labels=data.train.labels,
        )
        if config.method.reads_validation():
            dims = dims._replace(best_weighting=best_weighting(data, teachers))
        if kind.needs_maps:
            shape = (d.channels, d.image_size, d.image_size)
            dims = dims._replace(
                student_maps=models.map_shapes(student, shape),
                teacher_maps=tuple(models.map_shapes(t.model, shape) for t in teachers),
            )
        with seeded(config.seed, "method"):
            method = kind(config.method, dims)
        student = models.place(student, device, config.numerics.layout())
        tuned = isinstance(method, AlternatingMethod) and method.tunes_teachers
        own = [freezing.freeze(copy.deepcopy(t.model)) for t in teachers] if tuned else []
        method.to(device)
        ema = freezing.freeze(copy.deepcopy(student)) if method.ema else None
        learning = [*student.parameters(), *(p for _, p in method.trainable("B"))]
        optimiser, scaler = build_optimiser(config.optim, learning), config.numerics.scaler(device)
        return cls(student, method, own, optimiser, ema=ema, scaler=scaler)

    def state_dict(self) -> dict[str, Any]:
        return {
            "student": self.student.state_dict(),
            "method": self.method.state_dict(),
            "teachers": [t.state_dict() for t in self.teachers],
            "ema": self.ema.state_dict() if self.ema else None,
            "optimiser": saved_optimiser(self.optimiser),
            "a_optimiser": (
                saved_optimiser(self.a_optimiser) if self.a_optimiser else self.pending_a_optimiser
            ),
            "progress": self.progress.as_dict(),
            **({"scaler": self.scaler.state_dict()} if self.scaler else {}),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state. The A-Step's optimiser is rebuilt by its own step and gets
        its moments there (`pending_a_optimiser`)."""
        self.student.load_state_dict(saved["student"])
        self.method.load_state_dict(saved["method"])
        for teacher, weights in zip(self.teachers, saved["teachers"], strict=True):
            teacher.load_state_dict(weights)
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        load_optimiser(self.optimiser, saved["optimiser"])
        self.a_optimiser, self.pending_a_optimiser = None, saved["a_optimiser"]
        self.progress = Progress(**saved["progress"])
        if self.scaler:
            self.scaler.load_state_dict(saved["scaler"])
        self.queries = self.adapted = self.trunks = None
        for name in _PLAIN:
            setattr(self, name, saved[name])

    def selected(self) -> dict[str, Tensor]:
        """The student's weights of the selected epoch."""
        return self.best["weights"]


_PLAIN = ("best", "a_best", "stage_student", "synergy_top1", "synergy_ema", "gate_open", "notes")


class StepInputs(NamedTuple):
    """What an epoch reads and does not change."""

    config: DistillConfig
    numerics: Numerics
    data: TrainingData
    teachers: list[Teacher]
    views: Views
    normalise: Normaliser

    @classmethod
    def prepare(
        cls, config: DistillConfig, data: TrainingData, teachers: list[Teacher], state: DistillState
    ) -> StepInputs:
        """Views and normalisation for a run; without mixed precision where it was given up."""
        numerics = config.numerics.plain() if state.progress.autocast_off else config.numerics
        views = Views(data.train, config.data, numerics, data.unlabelled)
        return cls(
            config, numerics, data, teachers, views, Normaliser(config.data, numerics, views.device)
        )

    @property
    def device(self) -> torch.device:
        return self.views.device

    @property
    def table_folder(self) -> Path | None:
        """Where tables of all training views are mapped, which is done where the banks of the
        teachers are; None: they are held on the device."""
        banks = (teacher.bank.train for teacher in self.teachers)
        return next((rows.folder for rows in banks if isinstance(rows, TableOutputs)), None)

    def obstacle(self, *, banks: bool) -> str:
        """Why a step, which reads rows of the `banks` or not, cannot be a CUDA graph: the host has
        to read files for it. Empty: it can."""
        if not self.views.obstacle and banks and self.table_folder is not None:
            return f"view banks are {MAPPED}"
        return self.views.obstacle

    def plan(
        self, purpose: str, position: StepPosition, mix: MixConfig | None, *, unlabelled: bool
    ) -> EpochPlan:
        """Order, views and mixes of an epoch, with or without `unlabelled` images; fresh crops are
        drawn."""
        config, views = self.config, self.views
        views.redraw(config.seed, purpose, position.epoch)
        others = views.total - views.labelled
        sizes = step_sizes(config, views.labelled, others, mixed=unlabelled)
        return plan_epoch(
            config.seed,
            purpose,
            position.epoch,
            images=views.labelled,
            unlabelled=others,
            views=views.count,
            sizes=sizes,
            mix=mix,
            size=config.data.image_size,
            device=self.device,
        )


def step_sizes(
    config: DistillConfig, labelled: int, unlabelled: int, *, mixed: bool = True
) -> BatchSizes:
    """What a batch holds, and how many steps an epoch of either step has. In batches that are not
    `mixed`, those of the A-Step and of students without teachers, every image has a label."""
    optim = config.optim
    return batch_sizes(
        labelled,
        unlabelled,
        batch=optim.batch,
        share=optim.unlabelled_share if mixed else 0.0,
        steps=optim.steps_per_epoch,
    )
