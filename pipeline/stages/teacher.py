"""The teacher stage: fine-tune a teacher, make its view bank, load both for a student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import nn

from analysis import tags
from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.identity import finetune_config, identity, of_teachers, own_teacher, run_key
from pipeline.session import Session
from pipeline.stages.images import budget_bytes, on_device, resident_bytes
from pipeline.stages.names import run_name
from pipeline.stages.network import network
from pipeline.stages.run_spec import overlap_tag, run_spec
from pipeline.stages.runner import run
from pipeline.stages.view_bank import (
    bank_key,
    bank_key_of,
    check_space,
    has_banks,
    is_made,
    missing_bytes,
    view_bank,
    whole_bytes,
)
from pipeline.storage.run_record import RunResult, RunSpec
from trainers import metrics
from trainers.data import Splits, TrainingData
from trainers.data.views import Normaliser
from trainers.distillation.state import Teacher
from trainers.finetune import FinetuneState, finetune
from trainers.loop import Epoch, validation
from trainers.models import freezing, weight_files
from trainers.view_bank import Bank, ViewOutputs, image_outputs


class TeacherStage:
    """Fine-tuning of one teacher. Weights of the user (`teacher.0.ckpt`) are used as they are."""

    weights, bank_seconds = "teacher", 0.0

    def __init__(self, config: Config, number: int, session: Session) -> None:
        self.config, self.number, self.session = of_teachers(config), number, session
        self.trainer = finetune_config(self.config, number)
        self.data = on_device(self.config, session)
        key = run_key("finetune", self.config, teacher=number)
        self.folder = session.store.run("finetune", key)
        self.name = run_name("finetune", self.config, number)
        self.epochs = 0 if self.trainer.teacher.ckpt else self.trainer.teacher.recipe.epochs

    @property
    def rates(self) -> dict[str, float]:
        option = f"teacher.{self.number}.recipe.optim.lr"
        return {option: self.trainer.teacher.recipe.optim.lr}

    def spec(self) -> RunSpec:
        teacher = self.trainer.teacher
        run_tags = {
            tags.STAGE: "finetune",
            tags.STUDENT: teacher.model,
            tags.SEED: str(teacher.seed),
            tags.TEACHERS: teacher.model,
            tags.METHOD: "given" if teacher.ckpt else "ce",
        }
        return run_spec(
            self.config,
            self.session,
            name=self.name,
            identity=identity("finetune", self.config, teacher=self.number),
            run_tags=run_tags | overlap_tag(self.config),
            teacher=teacher,
        )

    def prepare(self) -> None:
        """Read given weights: a file that does not fit is a user error, not a failed run."""
        if self.trainer.teacher.ckpt:
            self.new_state()

    def new_state(self) -> FinetuneState:
        """The state before training, or with the user's weights the one after it.

        Raises:
            BadCheckpoint: the user's weights do not fit.
        """
        state = FinetuneState.new(self.trainer, self.session.device)
        state.stop, state.graphs = self.session.stop_of_any, self.session.graphs()
        if self.trainer.teacher.ckpt:
            self._load(state, self.trainer.teacher.ckpt)
        return state

    def _load(self, state: FinetuneState, path: str) -> None:
        """Finish the state with the weights of a file, and measure their validation accuracy."""
        weight_files.fit(state.model, weight_files.read_weights(path), path)
        normalise = Normaliser(self.trainer.data, self.trainer.numerics, self.session.device)
        out = image_outputs(state.model, self.data.val, normalise, self.trainer.numerics)
        accuracy = validation(out.logits, self.data.val.labels).get(metrics.VAL_TOP1)
        state.best = {"top1": accuracy, "epoch": 0, "weights": state.model.state_dict()}
        state.progress.done = True

    def train(self, state: FinetuneState) -> Iterator[Epoch]:
        return finetune(self.trainer, training(self.data), state)

    def network(self) -> nn.Module:
        config, model = self.config, self.trainer.teacher.model
        return network(model, config.data, config.numerics, self.session.device)


def finetune_teacher(config: Config, number: int, session: Session) -> RunResult:
    """The finished run of one teacher: reused, resumed or trained."""
    return run(TeacherStage(config, number, session), session)


def make_bank(config: Config, number: int, session: Session) -> None:
    """The view bank of one teacher, reused, resumed or made; its teacher is trained first."""
    key, name = bank_key(config, number), run_name("bank", config, number)
    if not has_banks(config):
        say("no view banks: data.views=0 runs the teachers on fresh crops")
        return
    if is_made(session.store, key):
        say(f"reused   view bank  {name}  key {key}")
        return
    check_room(config, [number], session)
    teacher = session.store.run("finetune", run_key("finetune", config, teacher=number))
    if teacher.whole_result() is None:
        finetune_teacher(config, number, session)
    Teachers(config, session, on_device(config, session), [number])()


def check_room(config: Config, numbers: Iterable[int], session: Session) -> None:
    """Raise UserError, before teachers are trained, where the disk has no room for their banks."""
    if has_banks(config):
        sizes = {
            run_name("bank", config, number): missing_bytes(config, number, session.store)
            for number in numbers
        }
        check_space(session.store.root, {name: size for name, size in sizes.items() if size})


class Trained(NamedTuple):
    """A finished run whose network teaches, and the name of its view bank."""

    stage: str
    weights: str
    key: str
    model: str
    bank_name: str


def trained(config: Config, numbers: Iterable[int]) -> list[Trained]:
    """These teachers of the bench, or the student that teaches in their place."""
    if (own := own_teacher(config)) is not None:
        key, name = run_key("distill", own), run_name("distill", own)
        return [Trained("distill", "student", key, own.student.model, f"bank-{name}")]
    return [
        Trained(
            "finetune",
            "teacher",
            run_key("finetune", config, teacher=number),
            config.teachers()[number].model,
            run_name("bank", config, number),
        )
        for number in numbers
    ]


class Teachers:
    """Trained teachers with their view banks, loaded at the first call."""

    def __init__(self, config: Config, session: Session, data: Splits, numbers: list[int]) -> None:
        self.config, self.session, self.data, self.numbers = config, session, data, numbers
        self.bank_seconds = 0.0  # spent on making banks
        self._loaded: list[Teacher] | None = None

    @property
    def tables(self) -> Path | None:
        """The folder of mapped tables, where the view banks are mapped; None: they fit into the
        device budget with the images."""
        if not has_banks(self.config):
            return None
        networks = [one.model for one in trained(self.config, self.numbers)]
        banks = sum(whole_bytes(self.config, model) for model in networks)
        images = resident_bytes(self.data, self.config)
        if images + banks <= budget_bytes(self.config.runtime, self.session):
            return None
        return self.session.store.root.parent / "tables"

    def __call__(self) -> list[Teacher]:
        if self._loaded is None:
            if self.tables is not None:
                say("view banks do not fit in runtime.device_budget: mapped from the store")
            self._loaded = [self._load(one) for one in trained(self.config, self.numbers)]
        return self._loaded

    def _load(self, one: Trained) -> Teacher:
        config, session = self.config, self.session
        folder = session.store.run(one.stage, one.key)
        result = folder.result()
        assert result is not None, f"teacher {one.key} is not finished"
        model = network(one.model, config.data, config.numerics, session.device)
        model.load_state_dict(folder.load_tensors(one.weights, result.weights[one.weights]))
        freezing.freeze(model)
        if not has_banks(config):  # fresh crops: teachers are run in the loop
            return Teacher(model, self._validation_outputs(model))
        bank, seconds = view_bank(
            session,
            bank_key_of(config, one.key),
            one.bank_name,
            model,
            training(self.data),
            config.data,
            config.numerics,
            self.tables,
            config.bank,
        )
        self.bank_seconds += seconds
        return Teacher(model, bank)

    def _validation_outputs(self, model: nn.Module) -> Bank:
        """A bank of the validation images alone."""
        normalise = Normaliser(self.config.data, self.config.numerics, self.session.device)
        out = image_outputs(model, self.data.val, normalise, self.config.numerics)
        val = ViewOutputs(out.logits.half(), out.pooled.half())
        return Bank(ViewOutputs(val.logits[:0], val.pooled[:0]), val)


def training(data: Splits) -> TrainingData:
    """The part of a data set that trainers may see."""
    return TrainingData(data.train, data.val, data.unlabelled)
