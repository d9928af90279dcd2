"""The network that `evaluate` measures: from a run (MLflow id, key or name) or a weights file."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from analysis import tags
from analysis.stores.address import redacted
from pipeline.config import Config, ConfigError
from pipeline.config.fields import build_dataclass
from pipeline.evaluation.lookup import KEY, STAGES, SUFFIXES, folder_of
from pipeline.evaluation.readings import counter_of
from pipeline.identity import KEY_LENGTH, file_digest, identity
from pipeline.session import Session
from pipeline.stages.network import network
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.run_record import RunSpec
from pipeline.storage.run_store import RunFolder, if_intact
from pipeline.tracking.restore import SPEC_FILE, fetched, logged_spec, whole_result, whole_spec
from pipeline.tracking.target import TrackingTarget
from trainers import models
from trainers.data import DataConfig
from trainers.models import weight_files
from trainers.models.weight_files import BadCheckpoint
from trainers.numerics import Numerics

RUN_ID = re.compile(r"[0-9a-f]{32}")
SHAPE = ("classes", "channels", "image_size")  # in which a network and a data set must agree
_WEIGHTS = re.compile(r"weights/(student|teacher)\.([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and the configuration that it was made with."""

    name: str  # distill-L3-digits-s0, or the stem of a file
    key: str  # run key, or the first digits of a file's sha256
    model: str
    weights: dict[str, Tensor]
    source: str  # where the weights came from, for messages
    data: DataConfig
    numerics: Numerics
    bench: str
    teachers: tuple[str, ...]  # keys of the teachers that it was distilled from
    folder: RunFolder  # counts its readings of the test split
    data_digest: str | None = None  # of the data that it was trained on, where that is known
    run_id: str | None = None  # in the tracking store, where it was given by that

    def network(self, device: torch.device) -> nn.Module:
        """The network in evaluation mode. Raises BadCheckpoint where the weights do not fit."""
        net = network(self.model, self.data, self.numerics, device)
        weight_files.fit(net, self.weights, self.source)
        return net.eval()


def is_file(text: str) -> bool:
    """Whether run=text is a weights file."""
    return Path(text).suffix in SUFFIXES or Path(text).is_file()


def find(text: str, config: Config, session: Session) -> LoadedModel:
    """The network of run=text; a run brings its configuration, a file has that of `config`.

    Raises:
        ConfigError: no such run, several, not finished, or a run without a network.
        BadCheckpoint: the weights are damaged.
    """
    if is_file(text):
        return _of_file(Path(text), config, session)
    if RUN_ID.fullmatch(text):
        return _of_tracked(text, session)
    folder = folder_of(text, session)
    found = stored(folder, session)
    if found is None:
        raise ConfigError(
            [
                f"run={text}: {folder.stage} {folder.key} is not finished; run the command that "
                "started it to resume"
            ]
        )
    return found


def stored(folder: RunFolder, session: Session) -> LoadedModel | None:
    """The network of a run in the store; None where it is not finished. Weights that are lost come
    back from the artifact store.

    Raises BadCheckpoint where its files are damaged or missing.
    """
    result = whole_result(folder, session.target)
    if result is None:
        if folder.result() is None:
            return None
        raise BadCheckpoint(
            f"the weights of run {folder.key} are lost: the command that trained it does so again"
        )
    try:
        spec = whole_spec(folder, session.target)
        if spec is None:
            raise CorruptFile(f"{folder.path / 'spec.json'} is missing")
        ((name, digest),) = result.weights.items()
        weights = folder.load_tensors(name, digest)
    except CorruptFile as error:
        raise BadCheckpoint(f"run {folder.key}: {error}") from error
    return _of_spec(spec, weights, str(folder.tensors_path(name, digest)), folder)


def _of_spec(
    spec: RunSpec, weights: dict[str, Tensor], source: str, folder: RunFolder
) -> LoadedModel:
    """The network of a run's specification, whose values are checked as options are."""
    errors: list[str] = []
    try:
        run_tags, config = spec.tags, spec.config
        data = build_dataclass(DataConfig, config["data"], "data.", errors)
        numerics = build_dataclass(Numerics, config["numerics"], "numerics.", errors)
        subject = LoadedModel(
            name=spec.name,
            key=folder.key,
            model=run_tags[tags.STUDENT],
            weights=weights,
            source=source,
            data=data,
            numerics=numerics,
            bench=run_tags[tags.BENCH],
            teachers=tuple(spec.identity.get("teachers", ())),
            folder=folder,
            data_digest=spec.data["digest"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError([f"run {folder.key}: its description lacks {error}"]) from error
    if not models.exists(str(subject.model)):
        errors.append(f"no model named {subject.model!r}")
    if errors:
        raise ConfigError([f"run {folder.key}, as it was stored: {text}" for text in errors])
    return subject


# By MLflow run id -----------------------------------------------------------------------------


def _of_tracked(run_id: str, session: Session) -> LoadedModel:
    from mlflow.exceptions import MlflowException

    client = session.target.client()
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        where = redacted(session.target.uri)
        raise ConfigError([f"run={run_id}: no such run in {where}"]) from error
    stage, key = run.data.tags.get(tags.STAGE), run.data.tags.get(tags.RUN_KEY, "")
    if stage not in STAGES or not KEY.fullmatch(key):
        raise ConfigError(
            [
                f"run={run_id}: {run.info.run_name} (stage {stage}) has no weights; give the id of "
                "a student (stage distill) or a teacher (stage finetune), as mlflow ui shows it"
            ]
        )
    folder = session.store.run(stage, key)
    local = if_intact(lambda: stored(folder, session))
    return replace(local or _of_artifacts(session.target, run_id, folder), run_id=run_id)


def _of_artifacts(target: TrackingTarget, run_id: str, folder: RunFolder) -> LoadedModel:
    """A run that is not in the store, from the weights and the specification that it logged."""
    client = target.client()
    logged = [file.path for path in ("", "weights") for file in client.list_artifacts(run_id, path)]
    matches = [match for path in logged if (match := _WEIGHTS.fullmatch(path))]
    if not matches or SPEC_FILE not in logged:
        raise ConfigError(
            [
                f"run={run_id}: its weights are neither in the store {folder.root} "
                "(runtime.store=FOLDER names another) nor, with its description, in its artifacts"
            ]
        )
    path, name, digest = matches[0].group(0, 1, 2)
    try:
        weights = safetensors.torch.load(fetched(target, run_id, name, digest))
        spec = logged_spec(target, run_id)
    except (CorruptFile, SafetensorError) as error:
        raise BadCheckpoint(str(error)) from error
    return _of_spec(spec, weights, f"artifact {path}", folder)


# A file ---------------------------------------------------------------------------------------


def _of_file(path: Path, config: Config, session: Session) -> LoadedModel:
    if not path.is_file():
        raise ConfigError([f"run={path}: no such file"])
    weights, digest = weight_files.read_weights(path), file_digest(str(path))
    net = network(config.student.model, config.data, config.numerics, torch.device("cpu"))
    weight_files.fit(net, weights, str(path))
    teachers = identity("distill", config)["teachers"]
    return LoadedModel(
        name=path.stem,
        key=digest[:KEY_LENGTH],
        model=config.student.model,
        weights=weights,
        source=str(path),
        data=config.data,
        numerics=config.numerics,
        bench=config.bench.name,
        teachers=tuple(teachers),
        folder=counter_of(net.state_dict(), digest, session.store),
    )


# The data set ---------------------------------------------------------------------------------


def on_data(subject: LoadedModel, chosen: DataConfig, keys: set[str]) -> LoadedModel:
    """The network of a run with the data set of the options; `keys` are those that were given.

    bench= and data= choose a whole data set, data.X= changes one option of the run's own. The
    normalisation (mean, std) stays that of the run.

    Raises:
        ConfigError: other classes, channels or image size.
    """
    whole = bool(keys & {"bench", "data"})
    claimed = [name for name in pixel_options() if whole or f"data.{name}" in keys]
    data = replace(subject.data, **{name: getattr(chosen, name) for name in claimed})
    if any(getattr(data, name) != getattr(subject.data, name) for name in SHAPE):
        raise ConfigError(
            [
                f"data set {data.name} ({_shape(data)}) does not fit {subject.name} "
                f"({_shape(subject.data)}): these must agree; without bench= and data= the "
                f"run's own data set {subject.data.name} is used"
            ]
        )
    return replace(subject, data=data)


def pixel_options() -> list[str]:
    """The options of a data set that decide its pixels and labels; the others are a recipe."""
    pixels = [f.name for f in fields(DataConfig) if not f.metadata["info"].identity]
    pixels.remove("teacher_limit")  # decides those of other runs
    return list(dict.fromkeys([*pixels, *SHAPE]))


def _shape(data: DataConfig) -> str:
    return ", ".join(f"{name} {getattr(data, name)}" for name in SHAPE)
