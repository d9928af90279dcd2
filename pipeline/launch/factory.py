"""Make the launcher of a configuration."""

from pathlib import Path

from pipeline.launch.base import Launcher
from pipeline.launch.options import LocalConfig, SlurmConfig


def make(config: LocalConfig | SlurmConfig, folder: Path) -> Launcher:
    """The launcher of a configuration."""
    if isinstance(config, SlurmConfig):
        from pipeline.launch.slurm import Slurm

        return Slurm(config, folder)
    from pipeline.launch.local import Local

    return Local(config, folder)
