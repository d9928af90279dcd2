"""Students and teachers: `build` makes a network by name, `outputs` reads it."""

from trainers.models.blocks import block_norms, block_parameters, head_is_classifier
from trainers.models.compiled import CannotCompile, step_outputs
from trainers.models.forward import Outputs, classify, map_shapes, outputs, pooled_dim
from trainers.models.registry import (
    TIMM_PREFIX,
    CannotBuild,
    NoWeights,
    UnknownModel,
    build,
    exists,
    from_timm,
    known_blocks,
    known_width,
    misfit,
    names,
    place,
)
from trainers.models.trial import Trial, trial

__all__ = [
    "TIMM_PREFIX",
    "CannotBuild",
    "CannotCompile",
    "NoWeights",
    "Outputs",
    "Trial",
    "UnknownModel",
    "block_norms",
    "block_parameters",
    "build",
    "classify",
    "exists",
    "from_timm",
    "head_is_classifier",
    "known_blocks",
    "known_width",
    "map_shapes",
    "misfit",
    "names",
    "outputs",
    "place",
    "pooled_dim",
    "step_outputs",
    "trial",
]
