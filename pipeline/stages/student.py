"""The two stages of a study as jobs: fine-tune a teacher, distil a student.

A stage that needs another runs it first; the store makes that a look-up where it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from analysis import tags
from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.identity import (
    distill_config,
    finetune_config,
    identity,
    needs_teachers,
    of_teachers,
    recipe_key,
    run_key,
    setting_key,
    splits,
)
from pipeline.session import Session
from pipeline.stages import provenance
from pipeline.stages.images import on_device
from pipeline.stages.matched_budget import resolved, standards
from pipeline.stages.runner import Job, run
from pipeline.stages.test_split import read_test
from pipeline.stages.view_bank import bank_key, bank_name, has_banks, is_made, view_bank
from pipeline.tracking.upload import flat, now_ms
from trainers import metrics, models
from trainers.data import DataConfig, Splits, TrainingData
from trainers.data.views import Normaliser
from trainers.distill import distill, plan
from trainers.distillation.state import DistillState, Teacher
from trainers.finetune import FinetuneConfig, FinetuneState, finetune
from trainers.loop import validation
from trainers.models import freezing, weight_files
from trainers.numerics import Numerics
from trainers.rng import seeded
from trainers.view_bank import Bank, ViewOutputs, image_outputs


def finetune_teacher(config: Config, number: int, session: Session) -> dict[str, Any]:
    """The finished run of one teacher: reused, resumed or trained."""
    config = of_teachers(config)
    stage, data = finetune_config(config, number), on_device(config, session)
    teacher, key = stage.teacher, run_key("finetune", config, teacher=number)
    given = bool(teacher.ckpt)
    if given and session.store.run("finetune", key).result() is None:
        _given(stage, data, session)  # a file that does not fit is a mistake, not a failed run
    name = f"finetune-{teacher.model}-{config.bench.name}-s{teacher.seed}"
    run_tags = {
        tags.STAGE: "finetune",
        tags.STUDENT: teacher.model,
        tags.SEED: str(teacher.seed),
        tags.TEACHERS: teacher.model,
        tags.METHOD: "given" if given else "ce",
    } | _overlap_tag(config)
    spec = _spec(config, session, f"{name}-given" if given else name, key, run_tags)
    spec["identity"] = identity("finetune", config, teacher=number)
    spec["config"]["teacher"] = {"0": asdict(teacher)}  # of all teachers, this one's
    spec["params"] = _params(spec["config"]) | {"overrides": spec["params"]["overrides"]}
    job = Job(
        folder=session.store.run("finetune", key),
        name=spec["name"],
        weights="teacher",
        spec=spec,
        epochs=0 if given else teacher.recipe.epochs,
        new_state=partial(_given if given else _untrained, stage, data, session),  # type: ignore[arg-type]
        train=lambda state: finetune(stage, training(data), state),  # type: ignore[arg-type]
        test=_test(
            partial(network, teacher.model, config.data, config.numerics, session.device),
            session,
            key,
            "finetune",
            data,
            config.data,
            config.numerics,
        ),
    )
    return run(job, session)


def _untrained(stage: FinetuneConfig, data: Splits, session: Session) -> FinetuneState:
    return FinetuneState.new(stage, session.device)


def _given(stage: FinetuneConfig, data: Splits, session: Session) -> FinetuneState:
    """A user's own teacher: done as it is, its validation accuracy measured."""
    state, path = FinetuneState.new(stage, session.device), stage.teacher.ckpt
    assert path is not None
    weight_files.fit(state.model, weight_files.read_weights(path), path)
    normalise = Normaliser(stage.data, stage.numerics, session.device)
    out = image_outputs(state.model, data.val, normalise, stage.numerics)
    accuracy = validation(out.logits, data.val.labels).get("val/top1")
    state.best = {"top1": accuracy, "epoch": 0, "weights": state.model.state_dict()}
    state.progress.done = True
    return state


def network(model: str, data: DataConfig, numerics: Numerics, device: torch.device) -> nn.Module:
    """A network of this name for the data set, on the device; its weights are loaded next."""
    with seeded(0, "shape"):  # leave every stream alone
        net = models.build(model, data.classes, data.image_size, in_chans=data.channels)
    return models.place(net, device, numerics.layout())


def distill_student(config: Config, session: Session) -> dict[str, Any]:
    """The finished run of one student, its teachers (if the method reads any) finished first."""
    asked, rung = config, config.budget.matched_to
    if rung is not None:
        config = given_the_time(config, session)
    stage, data = distill_config(config), on_device(config, session)
    numbers = range(len(config.teacher)) if needs_teachers(config) else range(0)
    key = run_key("distill", config)
    folder = session.store.run("distill", key)
    if folder.result() is None:
        for number in numbers:
            finetune_teacher(config, number, session)
    teachers = _LazyTeachers(config, session, data, list(numbers))
    name = f"distill-{config.rung}-{config.bench.name}-s{config.seed}"
    run_tags = {
        tags.STAGE: "distill",
        tags.STUDENT: config.student.model,
        tags.SEED: str(config.seed),
        tags.RUNG: config.rung,
        tags.METHOD: config.method.name,
        tags.TEACHERS: ",".join(config.teachers()[k].model for k in numbers),
    }
    spec = _spec(config, session, name, key, run_tags)
    spec["identity"] = identity("distill", config)
    study = identity("distill", asked)
    spec["tags"] |= {tags.RECIPE: recipe_key(study), tags.SETTING: setting_key(study)}
    if numbers:
        spec["tags"] |= _overlap_tag(config)
    if rung is not None:
        spec["tags"][tags.MATCHED_TO] = spec["params"]["budget.matched_to"] = rung
        spec["params"]["budget.matched_with"] = str(asked.budget.matched_with)

    job = Job(
        folder=folder,
        name=name,
        weights="student",
        spec=spec,
        epochs=len(plan(stage)),
        new_state=lambda: DistillState.new(stage, training(data), teachers()),  # type: ignore[arg-type,return-value]
        train=lambda state: distill(stage, training(data), teachers(), state),  # type: ignore[arg-type]
        test=_test(
            partial(network, config.student.model, config.data, config.numerics, session.device),
            session,
            key,
            "distill",
            data,
            config.data,
            config.numerics,
        ),
        bank_seconds=lambda: teachers.bank_seconds,
    )
    return run(job, session)


def _overlap_tag(config: Config) -> dict[str, str]:
    """The overlap of specialised teachers; full teachers have none."""
    whole = config.overlap in (None, 100)
    return {} if whole else {tags.OVERLAP: str(config.overlap)}


def given_the_time(config: Config, session: Session) -> Config:
    """A CE_matched configuration as a stage: the rung and CE are run first, at this seed."""
    pair = standards(config, session.overrides)
    claimed = [distill_student(one, session)["metrics"][metrics.RUN_SECONDS] for one in pair]
    found = resolved(config, *claimed)
    say(
        f"{config.cfg}: {pair[0].cfg} took {claimed[0]:.1f} s, {pair[1].cfg} {claimed[1]:.1f} s: "
        f"{found.budget.student_epochs} epochs"
    )
    return found


def make_bank(config: Config, number: int, session: Session) -> None:
    """The view bank of one teacher: there already, gone on with or made; the teacher before it."""
    key, name = bank_key(config, number), bank_name(config, number)
    if not has_banks(config):
        say("no view banks: data.views=0 runs the teachers on fresh crops")
        return
    if is_made(session.store, key):
        say(f"reused   view bank  {name}  key {key}")
        return
    teacher = run_key("finetune", config, teacher=number)
    if session.store.run("finetune", teacher).result() is None:
        finetune_teacher(config, number, session)
    _LazyTeachers(config, session, on_device(config, session), [number])()


class _LazyTeachers:
    """The teachers with their banks, loaded when a run that is not finished asks for them."""

    def __init__(self, config: Config, session: Session, data: Splits, numbers: list[int]) -> None:
        self.config, self.session, self.data, self.numbers = config, session, data, numbers
        self.bank_seconds = 0.0
        self._loaded: list[Teacher] | None = None

    def __call__(self) -> list[Teacher]:
        if self._loaded is None:
            self._loaded = [self._load(number) for number in self.numbers]
        return self._loaded

    def _load(self, number: int) -> Teacher:
        config, session = self.config, self.session
        stage, key = finetune_config(config, number), run_key("finetune", config, teacher=number)
        folder = session.store.run("finetune", key)
        result = folder.result()
        assert result is not None, f"teacher {key} is not finished"
        model = network(stage.teacher.model, stage.data, stage.numerics, session.device)
        model.load_state_dict(folder.load_tensors("teacher", result["weights"]["teacher"]))
        freezing.freeze(model)
        if not has_banks(config):  # fresh crops: teachers are run in the loop
            return Teacher(model, self._without_rows(model))
        bank, seconds = view_bank(
            session,
            bank_key(config, number),
            bank_name(config, number),
            model,
            training(self.data),
            config.data,
            config.numerics,
        )
        self.bank_seconds += seconds
        return Teacher(model, bank)

    def _without_rows(self, model: nn.Module) -> Bank:
        normalise = Normaliser(self.config.data, self.config.numerics, self.session.device)
        out = image_outputs(model, self.data.val, normalise, self.config.numerics)
        val = ViewOutputs(out.logits.half(), out.pooled.half())
        return Bank(ViewOutputs(val.logits[:0], val.pooled[:0]), val)


def training(data: Splits) -> TrainingData:
    """What trainers may see."""
    return TrainingData(data.train, data.val)


def _test(
    build: Callable[[], nn.Module],
    session: Session,
    key: str,
    stage: str,
    data: Splits,
    config: DataConfig,
    numerics: Numerics,
) -> Callable[[dict[str, Tensor]], tuple[nn.Module, dict[str, float]]]:
    """The finalise step of a job: build the network, load the selected weights, read test."""

    def test(weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, float]]:
        model = build()
        model.load_state_dict(weights)
        found = read_test(session.store.run(stage, key), model, data, config, numerics)
        return model, found | {metrics.VAL_IMAGES: float(len(data.val.labels))}

    return test


def _spec(
    config: Config, session: Session, name: str, key: str, run_tags: dict[str, str]
) -> dict[str, Any]:
    """What a run folder says of its run, enough to publish it without this configuration."""
    plain = asdict(config)
    texts = {
        "config.yaml": yaml.safe_dump(plain, sort_keys=False),
        "overrides.txt": "\n".join(session.overrides) + "\n",
        "versions.json": json.dumps(provenance.versions(), indent=1),
    }
    if provenance.git_diff():
        texts["git.diff"] = provenance.git_diff()
    data = splits(config.data)
    if data.sources:
        texts["data_files.txt"] = "".join(f"{digest}  {name}\n" for name, digest in data.sources)
    return {
        "name": name,
        "time": now_ms(),
        "config": plain,
        "params": _params(plain) | {"overrides": " ".join(session.overrides)},
        "tags": {
            tags.BENCH: config.bench.name,
            tags.RUN_KEY: key,
            tags.GIT: provenance.git_revision(),
            "device": device_name(session.device),
            **run_tags,
        },
        "texts": texts,
        "versions": provenance.versions(),
        "data": {"name": config.data.name, "digest": data.digest},
    }


def _params(plain: dict[str, Any]) -> dict[str, str]:
    """Dotted parameters; the bench's name as plain `bench`, which is how people filter."""
    found = {key: str(value) for key, value in flat(plain)}
    return {"bench": found.pop("bench.name"), **found}


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
