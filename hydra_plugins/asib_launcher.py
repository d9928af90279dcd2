"""Hydra's launchers of this project: those of hydra-submitit-launcher, with another `launch`.

Jobs are planned, reused, made to depend on each other, joined and requeued by `pipeline.launch`.
They are commands with their arguments in JSON, and results are read from the store: nothing is
unpickled. Hydra imports this module whenever it looks for plugins, so what is large is imported by
`launch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from omegaconf import DictConfig, OmegaConf


class _Students:
    """`launch` runs the students of `pipeline distill -m`."""

    params: dict[str, Any]
    config: DictConfig | None

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run every student; the value of a job is its best accuracy on validation.

        Raises:
            ConfigError, JobsFailed, Interrupted: as `pipeline.launch.multirun.multirun`.
        """
        from pipeline.launch.multirun import launch
        from pipeline.launch.options import of_plugin

        assert self.config is not None, "setup() comes first"
        given: Any = OmegaConf.to_container(self.config.hydra.overrides)
        config = of_plugin(f"{__name__}.{type(self).__name__}", self.params)
        return launch(job_overrides, config, [*given["task"], *given["hydra"]])


class SlurmLauncher(_Students, submitit_launcher.SlurmLauncher):
    """hydra/launcher=submitit_slurm"""


class LocalLauncher(_Students, submitit_launcher.LocalLauncher):
    """hydra/launcher=submitit_local"""
