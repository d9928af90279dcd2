"""The student as an MLflow model that takes pixels and gives logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.storage.run_record import RunResult, RunSpec
from pipeline.storage.run_store import RunFolder
from pipeline.tracking.target import TrackingTarget
from trainers import models


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
) -> None:
    """Log the student under its run, with a signature, ready for `mlflow models serve`."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    data = spec.config["data"]
    shape = (data["channels"], data["image_size"], data["image_size"])
    served = Served(rebuild_student(folder, spec, result), data["mean"], data["std"]).eval()
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, data["classes"]))]),
    )
    mlflow.set_tracking_uri(target.uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pytorch.log_model(
            served,
            name="student",
            signature=signature,
            input_example=np.zeros((2, *shape), dtype="float32"),
            pip_requirements=[f"{name}=={spec.versions[name]}" for name in ("mlflow", "torch")],
            serialization_format="pt2",
        )
