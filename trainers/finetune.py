"""Fine-tune (or train from scratch) one teacher on the labels.

A generator of epochs: it changes the state it was given and knows nothing of files or trackers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainers import metrics, models, targets
from trainers.data import DataConfig, TrainingData
from trainers.data.class_overlap import images_of
from trainers.data.views import Normaliser, Views
from trainers.loop import (
    Epoch,
    Progress,
    check_finite,
    keep_best,
    peak_memory_mb,
    right,
    run_steps,
    validation,
)
from trainers.mixing import MixConfig, batch_sizes, mix_images, plan_epoch
from trainers.models import step_outputs
from trainers.numerics import Numerics
from trainers.optim import (
    OptimConfig,
    build_optimiser,
    gradient_step,
    load_optimiser,
    lr_table,
    saved_optimiser,
    set_lr,
)
from trainers.options import When, option
from trainers.read_ahead import reading_ahead
from trainers.rng import seeded
from trainers.step_graph import Graphs
from trainers.step_index import Index, select
from trainers.view_bank import image_outputs
from trainers.weight_digest import state_digests

CPU = torch.device("cpu")
FINETUNE_VERSION = 1  # raise it when the numbers of this stage change


@dataclass
class RecipeConfig:
    """How a teacher is fine-tuned."""

    epochs: int = option(30, "epochs of fine-tuning", low=1)
    label_smoothing: float = option(0.0, "label smoothing of the fine-tuning", low=0, high=1)
    optim: OptimConfig = option(OptimConfig, "optimiser")
    mix: MixConfig = option(MixConfig, "mixing")


_trained = When("the teacher is not given by `ckpt`", lambda t: not t.ckpt)
_specialised = When("the teacher is trained on some classes only", lambda t: t.classes is not None)


@dataclass
class TeacherConfig:
    """One teacher: what is built, from what, and how it is fine-tuned."""

    model: str = option("resnet20", "architecture", choices=models.names, free=models.TIMM_PREFIX)
    seed: int = option(0, "seed of the teacher's initial weights and data order", low=0)
    pretrained: bool = option(False, "start from published weights")
    ckpt: str | None = option(
        None,
        "file of your own weights (safetensors or a state dict); the teacher is not fine-tuned",
        identity=False,
        path=True,
    )
    classes: list[int] | None = option(
        None,
        "classes that the teacher is trained on, from 0 (null: all; `overlap` sets those of all "
        "teachers); the head keeps an output for every class",
        low=0,
        when=_specialised,
    )
    recipe: RecipeConfig = option(RecipeConfig, "fine-tuning recipe", when=_trained)


@dataclass
class FinetuneConfig:
    """Exactly what can change a fine-tuned teacher."""

    teacher: TeacherConfig
    data: DataConfig
    numerics: Numerics
    select: str = "best"


@dataclass
class FinetuneState:
    """Everything that changes while a teacher is fine-tuned."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None  # in float16
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Any] = field(default_factory=dict)  # top1, epoch, weights
    graphs: Graphs | None = None  # of the steps, on a GPU (None: they are run one by one)
    stop: Callable[[], bool] = lambda: False

    @classmethod
    def new(cls, config: FinetuneConfig, device: torch.device = CPU) -> FinetuneState:
        """Initial weights of the teacher's own seed, on the device."""
        data = config.data
        with seeded(config.teacher.seed, "teacher"):
            model = models.build(
                config.teacher.model,
                data.classes,
                data.image_size,
                config.teacher.pretrained,
                in_chans=data.channels,
            )
        model = models.place(model, device, config.numerics.layout())
        optimiser = build_optimiser(config.teacher.recipe.optim, model.parameters())
        return cls(model, optimiser, config.numerics.scaler(device))

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": saved_optimiser(self.optimiser),
            "progress": self.progress.as_dict(),
            "best": self.best,
            **({"scaler": self.scaler.state_dict()} if self.scaler else {}),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        load_optimiser(self.optimiser, saved["optimiser"])
        self.progress = Progress(**saved["progress"])
        if self.scaler:
            self.scaler.load_state_dict(saved["scaler"])
        self.best = saved["best"]

    def selected(self) -> dict[str, Tensor]:
        """The weights of the selected epoch."""
        return self.best["weights"]


def finetune(config: FinetuneConfig, data: TrainingData, state: FinetuneState) -> Iterator[Epoch]:
    """Train the teacher of `state` to the end of its recipe, yielding each epoch.

    A teacher of some classes sees no image of the others; `val/top1`, by which its epoch is
    selected, is that on its own classes, and `val/top1_all_classes` is logged next to it.

    Raises:
        NonFinite: a loss or a weight is not finite.
        Interrupted: `state.stop()` turned true; the state is at a step boundary.
    """
    recipe, device = config.teacher.recipe, data.train.device
    numerics = config.numerics.plain() if state.progress.autocast_off else config.numerics
    views = Views(data.train, config.data, numerics)
    normalise = Normaliser(config.data, numerics, device)
    while state.progress.slot < recipe.epochs:
        began, epoch = time.perf_counter(), state.progress.slot
        values = _train_epoch(config, numerics, views, state, epoch)
        check_finite(state.model)
        values |= state_digests(teacher=[state.model])
        out = image_outputs(state.model, data.val, normalise, numerics, of_ranks=True)
        values |= _validation(config.teacher.classes, out.logits, data.val.labels)
        keep_best(state.best, values.get(metrics.VAL_TOP1), epoch, state.model, config.select)
        values[metrics.EPOCH_SECONDS] = time.perf_counter() - began
        values[metrics.PEAK_MEMORY] = peak_memory_mb(device)
        state.progress.slot += 1
        state.progress.done = state.progress.slot == recipe.epochs
        yield Epoch(epoch, 1, "B", values)


def _validation(classes: list[int] | None, logits_MC: Tensor, labels_M: Tensor) -> dict[str, float]:
    """Validation metrics, of a specialised teacher on its own classes and on all of them."""
    whole = validation(logits_MC, labels_M)
    if classes is None or not whole:
        return whole
    own = images_of(classes, labels_M)
    return validation(logits_MC[own], labels_M[own]) | {
        metrics.VAL_TOP1_ALL: whole[metrics.VAL_TOP1]
    }


def _train_epoch(
    config: FinetuneConfig, numerics: Numerics, views: Views, state: FinetuneState, epoch: int
) -> dict[str, float]:
    recipe, device = config.teacher.recipe, views.device
    mixing = recipe.mix if recipe.mix.active(epoch, recipe.epochs) else None
    classes, labels_N = config.teacher.classes, views.images.labels
    own = None if classes is None else images_of(classes, labels_N)
    count, optim = len(labels_N if own is None else own), recipe.optim
    plan = plan_epoch(
        config.teacher.seed,
        "teacher",
        epoch,
        images=count,
        views=views.count,
        sizes=batch_sizes(count, 0, batch=optim.batch, steps=optim.steps_per_epoch),
        mix=mixing,
        size=config.data.image_size,
        device=device,
    )
    if own is not None:  # the plan is of the teacher's own images: find them among all
        rows = own[plan.rows // views.count] * views.count + plan.rows % views.count
        plan = plan._replace(rows=rows)
    views.redraw(config.teacher.seed, "teacher", epoch)
    labels_SB, crops, steps = views.labels(plan.rows), views.crops(plan.rows), len(plan.rows)
    (shown_SXB, share_SX), scaler = plan.shown(labels_SB), state.scaler if numerics.mixed else None
    state.model.train()

    rates = [optim.lr_at(epoch * steps + i, steps, recipe.epochs) for i in range(steps)]
    lr, graphs = lr_table(rates, device), state.graphs
    if graphs is not None:
        graphs.without("teacher", views.obstacle)

    def step(i: Index) -> dict[str, Tensor]:
        set_lr(state.optimiser, lr(i))
        images, labels, mix = views.cut(crops.at(i)), select(labels_SB, i), plan.mix(i)
        with numerics.autocast(device):
            mixed = mix_images(images, mix)
            logits = step_outputs(state.model, mixed, compiled=numerics.compile).logits
        loss = targets.label_loss(logits, labels, recipe.label_smoothing, mix)
        skipped = gradient_step(loss, state.optimiser, scaler)
        top1 = right(logits, select(shown_SXB, i), select(share_SX, i))
        return {metrics.LOSS_TOTAL: loss, metrics.TRAIN_TOP1: top1} | skipped

    purpose = (config.teacher.seed, "teacher", "dropout", epoch)
    with reading_ahead([views.reads(plan.rows)]):
        means = run_steps(state.progress, steps, step, state.stop, purpose, graphs=graphs)
    images = steps * plan.rows.shape[1]
    means[metrics.IMAGES_PER_SECOND] = images / means.pop("steps_seconds")
    return means | {metrics.LR: rates[-1]}
