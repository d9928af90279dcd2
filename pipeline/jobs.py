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

from pipeline import names, provenance
from pipeline.banks import bank_key, bank_name, has_banks, is_made, view_bank
from pipeline.config import Config
from pipeline.console import say
from pipeline.finalise import read_test
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
from pipeline.matching import resolved, standards
from pipeline.publish import flat, now_ms
from pipeline.residence import on_device
from pipeline.shell import Shell
from pipeline.stages import Job, run
from trainers import checkpoints, freezing, models
from trainers.data import DataConfig, Splits, TrainingData
from trainers.distill import distill, plan
from trainers.finetune import FinetuneConfig, FinetuneState, finetune
from trainers.loop import validation
from trainers.run import Bank, DistillState, Teacher
from trainers.streams import seeded
from trainers.views import Normaliser, Numerics, Rows, image_rows


def finetune_teacher(config: Config, number: int, shell: Shell) -> dict[str, Any]:
    """The finished run of one teacher: reused, resumed or trained."""
    config = of_teachers(config)
    stage, data = finetune_config(config, number), on_device(config, shell)
    teacher, key = stage.teacher, run_key("finetune", config, teacher=number)
    given = bool(teacher.ckpt)
    if given and shell.store.run("finetune", key).result() is None:
        _given(stage, data, shell)  # a file that does not fit is a mistake, not a failed run
    name = f"finetune-{teacher.model}-{config.bench.name}-s{teacher.seed}"
    tags = {
        names.STAGE: "finetune", names.STUDENT: teacher.model, names.SEED: str(teacher.seed),
        names.TEACHERS: teacher.model, names.METHOD: "given" if given else "ce",
    } | _overlap_tag(config)  # fmt: skip
    spec = _spec(config, shell, f"{name}-given" if given else name, key, tags)
    spec["identity"] = identity("finetune", config, teacher=number)
    spec["config"]["teacher"] = {"0": asdict(teacher)}  # of all teachers, this one's
    spec["params"] = _params(spec["config"]) | {"overrides": spec["params"]["overrides"]}
    job = Job(
        folder=shell.store.run("finetune", key),
        name=spec["name"],
        weights="teacher",
        spec=spec,
        epochs=0 if given else teacher.recipe.epochs,
        new_state=partial(_given if given else _untrained, stage, data, shell),  # type: ignore[arg-type]
        train=lambda state: finetune(stage, training(data), state),  # type: ignore[arg-type]
        test=_test(
            partial(network, teacher.model, config.data, config.numerics, shell.device), shell, key,
            "finetune", data, config.data, config.numerics,
        ),
    )  # fmt: skip
    return run(job, shell)


def _untrained(stage: FinetuneConfig, data: Splits, shell: Shell) -> FinetuneState:
    return FinetuneState.new(stage, shell.device)


def _given(stage: FinetuneConfig, data: Splits, shell: Shell) -> FinetuneState:
    """A user's own teacher: done as it is, its validation accuracy measured."""
    state, path = FinetuneState.new(stage, shell.device), stage.teacher.ckpt
    assert path is not None
    checkpoints.fit(state.model, checkpoints.read_weights(path), path)
    normalise = Normaliser(stage.data, stage.numerics, shell.device)
    out = image_rows(state.model, data.val, normalise, stage.numerics)
    accuracy = validation(out.logits, data.val.labels).get("val/top1")
    state.best = {"top1": accuracy, "epoch": 0, "weights": state.model.state_dict()}
    state.progress.done = True
    return state


def network(model: str, data: DataConfig, numerics: Numerics, device: torch.device) -> nn.Module:
    """A network of this name for the data set, on the device; its weights are loaded next."""
    with seeded(0, "shape"):  # leave every stream alone
        net = models.build(model, data.classes, data.image_size, in_chans=data.channels)
    return models.place(net, device, numerics.layout())


def distill_student(config: Config, shell: Shell) -> dict[str, Any]:
    """The finished run of one student, its teachers (if the method reads any) finished first."""
    asked, rung = config, config.budget.matched_to
    if rung is not None:
        config = given_the_time(config, shell)
    stage, data = distill_config(config), on_device(config, shell)
    numbers = range(len(config.teacher)) if needs_teachers(config) else range(0)
    key = run_key("distill", config)
    folder = shell.store.run("distill", key)
    if folder.result() is None:
        for number in numbers:
            finetune_teacher(config, number, shell)
    teachers = _LazyTeachers(config, shell, data, list(numbers))
    name = f"distill-{config.rung}-{config.bench.name}-s{config.seed}"
    tags = {
        names.STAGE: "distill", names.STUDENT: config.student.model,
        names.SEED: str(config.seed), names.RUNG: config.rung,
        names.METHOD: config.method.name,
        names.TEACHERS: ",".join(config.teachers()[k].model for k in numbers),
    }  # fmt: skip
    spec = _spec(config, shell, name, key, tags)
    spec["identity"] = identity("distill", config)
    study = identity("distill", asked)
    spec["tags"] |= {names.RECIPE: recipe_key(study), names.SETTING: setting_key(study)}
    if numbers:
        spec["tags"] |= _overlap_tag(config)
    if rung is not None:
        spec["tags"][names.MATCHED_TO] = spec["params"]["budget.matched_to"] = rung
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
            partial(network, config.student.model, config.data, config.numerics, shell.device),
            shell, key, "distill", data, config.data, config.numerics,
        ),
        bank_seconds=lambda: teachers.bank_seconds,
    )  # fmt: skip
    return run(job, shell)


def _overlap_tag(config: Config) -> dict[str, str]:
    """The overlap of specialised teachers; full teachers have none."""
    whole = config.overlap in (None, 100)
    return {} if whole else {names.OVERLAP: str(config.overlap)}


def given_the_time(config: Config, shell: Shell) -> Config:
    """A CE_matched configuration as a stage: the rung and CE are run first, at this seed."""
    pair = standards(config, shell.overrides)
    taken = [distill_student(one, shell)["metrics"][names.RUN_SECONDS] for one in pair]
    found = resolved(config, *taken)
    say(
        f"{config.cfg}: {pair[0].cfg} took {taken[0]:.1f} s, {pair[1].cfg} {taken[1]:.1f} s: "
        f"{found.budget.student_epochs} epochs"
    )
    return found


def make_bank(config: Config, number: int, shell: Shell) -> None:
    """The view bank of one teacher: there already, gone on with or made; the teacher before it."""
    key, name = bank_key(config, number), bank_name(config, number)
    if not has_banks(config):
        say("no view banks: data.views=0 runs the teachers on fresh crops")
        return
    if is_made(shell.store, key):
        say(f"reused   view bank  {name}  key {key}")
        return
    teacher = run_key("finetune", config, teacher=number)
    if shell.store.run("finetune", teacher).result() is None:
        finetune_teacher(config, number, shell)
    _LazyTeachers(config, shell, on_device(config, shell), [number])()


class _LazyTeachers:
    """The teachers with their banks, loaded when a run that is not finished asks for them."""

    def __init__(self, config: Config, shell: Shell, data: Splits, numbers: list[int]) -> None:
        self.config, self.shell, self.data, self.numbers = config, shell, data, numbers
        self.bank_seconds = 0.0
        self._loaded: list[Teacher] | None = None

    def __call__(self) -> list[Teacher]:
        if self._loaded is None:
            self._loaded = [self._load(number) for number in self.numbers]
        return self._loaded

    def _load(self, number: int) -> Teacher:
        config, shell = self.config, self.shell
        stage, key = finetune_config(config, number), run_key("finetune", config, teacher=number)
        folder = shell.store.run("finetune", key)
        result = folder.result()
        assert result is not None, f"teacher {key} is not finished"
        model = network(stage.teacher.model, stage.data, stage.numerics, shell.device)
        model.load_state_dict(folder.load_tensors("teacher", result["weights"]["teacher"]))
        freezing.freeze(model)
        if not has_banks(config):  # fresh crops: teachers are run in the loop
            return Teacher(model, self._without_rows(model))
        bank, seconds = view_bank(
            shell, bank_key(config, number), bank_name(config, number), model,
            training(self.data), config.data, config.numerics,
        )  # fmt: skip
        self.bank_seconds += seconds
        return Teacher(model, bank)

    def _without_rows(self, model: nn.Module) -> Bank:
        normalise = Normaliser(self.config.data, self.config.numerics, self.shell.device)
        out = image_rows(model, self.data.val, normalise, self.config.numerics)
        val = Rows(out.logits.half(), out.pooled.half())
        return Bank(Rows(val.logits[:0], val.pooled[:0]), val)


def training(data: Splits) -> TrainingData:
    """What trainers may see."""
    return TrainingData(data.train, data.val)


def _test(
    build: Callable[[], nn.Module],
    shell: Shell,
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
        found = read_test(shell.store.run(stage, key), model, data, config, numerics)
        return model, found | {names.VAL_IMAGES: float(len(data.val.labels))}

    return test


def _spec(
    config: Config, shell: Shell, name: str, key: str, tags: dict[str, str]
) -> dict[str, Any]:
    """What a run folder says of its run, enough to publish it without this configuration."""
    plain = asdict(config)
    texts = {
        "config.yaml": yaml.safe_dump(plain, sort_keys=False),
        "overrides.txt": "\n".join(shell.overrides) + "\n",
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
        "params": _params(plain) | {"overrides": " ".join(shell.overrides)},
        "tags": {
            names.BENCH: config.bench.name,
            names.RUN_KEY: key,
            names.GIT: provenance.git_revision(),
            "device": device_name(shell.device),
            **tags,
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
