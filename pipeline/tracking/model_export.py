"""The student as an MLflow model that takes pixels and gives logits."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.storage.run_record import RunResult, RunSpec
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.creation import BadAnswer
from pipeline.tracking.target import TrackingTarget
from trainers import metrics, models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import Model


log = logging.getLogger("pipeline")

ALIAS = "current"
_URI = "MLFLOW_TRACKING_URI"
_SHOWN = "mlflow.modelVersions"  # tag from which a model's page knows its versions


class Served(nn.Module):
    """Pixels [B, C, H, W] in 0..255 (float32) to logits [B, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, student: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.student((pixels / 255 - self.mean) / self.std)
        return logits


@contextmanager
def _as_the_store(uri: str) -> Iterator[None]:
    """MLflow's own functions use the store at `uri`; afterwards the one they used before, for they
    are also those of the program that called us (and of the processes that it starts)."""
    import mlflow

    before = os.environ.get(_URI)  # MLflow keeps its choice here too
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ[_URI] = before


def rebuild_student(folder: RunFolder, spec: RunSpec, result: RunResult) -> nn.Module:
    """The finished student of a run folder, in evaluation mode."""
    data = spec.config["data"]
    student = models.build(
        spec.config["student"]["model"],
        data["classes"],
        data["image_size"],
        in_chans=data["channels"],
    )
    student.load_state_dict(folder.load_tensors("student", result.weights["student"]))
    return student.eval()


def log_student(
    folder: RunFolder,
    spec: RunSpec,
    result: RunResult,
    target: TrackingTarget,
    run_id: str,
    step: int,
) -> str:
    """Log the student under its run, with a signature, ready for `mlflow models serve`, and linked
    to the run's metrics of a step; return the address of its files. All other models of the run are
    deleted: damaged ones, and those that an interrupted call has left."""
    client = target.client()
    known = {one.model_id for one in _models_of(client, target.experiment_id(), run_id)}
    _log(folder, spec, result, target, run_id, step)
    models = _models_of(client, target.experiment_id(), run_id)
    new = [one for one in models if one.model_id not in known and one.status == "READY"]
    linked = {one.model_id for one in linked_models(target, client.get_run(run_id), result)}
    if not new or new[-1].model_id not in linked:
        raise BadAnswer("the model that was logged is not in the tracking store, or not whole")
    for extra in models:
        if extra.model_id != new[-1].model_id:
            client.delete_logged_model(extra.model_id)
    return str(new[-1].artifact_location)


def linked_models(target: TrackingTarget, run: Any, result: RunResult) -> list[LoggedModel]:
    """The models of a run that are ready, that its page shows, and that have its numbers."""
    outputs = run.outputs
    linked = {one.model_id for one in outputs.model_outputs} if outputs is not None else set()
    models = _models_of(target.client(), target.experiment_id(), run.info.run_id)
    ready = [one for one in models if one.status == "READY" and one.model_id in linked]
    return [one for one in ready if _has_numbers(one, result)]


def _has_numbers(model: LoggedModel, result: RunResult) -> bool:
    """Whether a model has the metrics by which models are sorted."""
    found = {metric.key: metric.value for metric in model.metrics or []}
    wanted = (metrics.TEST_TOP1, metrics.BEST_VAL_TOP1)
    known = {name: result.metrics[name] for name in wanted if name in result.metrics}
    return all(math.isclose(found.get(name, math.nan), value) for name, value in known.items())


def register(target: TrackingTarget, run_id: str) -> None:
    """Register the model of a run under the target's name, once, and give that version the alias
    `current`: `models:/NAME@current` is the student that was registered last."""
    from mlflow.exceptions import MlflowException

    client, name = target.client(), str(target.register)
    experiment = client.get_run(run_id).info.experiment_id
    models = _models_of(client, experiment, run_id)
    if not models:
        log.warning("runtime.register=%s: the run has no model (runtime.log_model=false?)", name)
        return
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    query = f"name = '{name}'"
    versions = [one for one in client.search_model_versions(query) if one.run_id == run_id]
    if not versions:
        own = models[-1].model_id
        client.create_model_version(name, f"models:/{own}", run_id, model_id=own)
        versions = [one for one in client.search_model_versions(query) if one.run_id == run_id]
    first, *extras = sorted(versions, key=lambda one: int(one.version))
    for extra in extras:  # of a repeated request
        client.delete_model_version(name, extra.version)
    client.set_registered_model_alias(name, ALIAS, first.version)
    shown = [{"name": name, "version": first.version}]  # a server does so itself, a database not
    client.set_logged_model_tags(models[-1].model_id, {_SHOWN: json.dumps(shown)})


def _models_of(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """The logged models of a run, the oldest first."""
    order = [{"field_name": "creation_timestamp", "ascending": True}]
    query = f"source_run_id = '{run_id}'"
    return [*client.search_logged_models([experiment_id], query, order_by=order)]


def _log(
    folder: RunFolder,
    spec: RunSpec,
    result: RunResult,
    target: TrackingTarget,
    run_id: str,
    step: int,
) -> None:
    import mlflow
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data = spec.config["data"]
    shape = (data["channels"], data["image_size"], data["image_size"])
    served = Served(rebuild_student(folder, spec, result), data["mean"], data["std"]).eval()
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, data["classes"]))]),
    )
    with _as_the_store(target.uri), mlflow.start_run(run_id=run_id, log_system_metrics=False):
        Model.log(
            None,  # the folder of MLflow 2
            name="student",
            flavor=_TorchOnCpu,
            pytorch_model=served,
            signature=signature,
            input_example=np.zeros((2, *shape), dtype="float32"),
            pip_requirements=[f"{name}=={spec.versions[name]}" for name in ("mlflow", "torch")],
            serialization_format="pt2",
            step=step,
        )


class _TorchOnCpu:
    """MLflow's torch models, of an exported network: it has its weights on the CPU for good, and
    MLflow would load it on a GPU wherever there is one, which fails."""

    @staticmethod
    def save_model(path: str, mlflow_model: Model, **options: Any) -> None:
        """Write the files of a model to a folder."""
        import mlflow.pytorch
        from mlflow.models.model import MLMODEL_FILE_NAME

        mlflow.pytorch.save_model(path=path, mlflow_model=mlflow_model, **options)
        mlflow_model.flavors["python_function"]["config"] = {"device": "cpu"}
        mlflow_model.save(os.path.join(path, MLMODEL_FILE_NAME))
