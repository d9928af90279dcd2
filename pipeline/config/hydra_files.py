"""What Hydra composes from the files of conf/ and of the user's own folder, and prints of them."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config.errors import ConfigError
from pipeline.config.groups import CONF, LAUNCHER, OWN, file_of, folders
from pipeline.config.yaml_file import yaml_reason

ROOT = "config"  # conf/config.yaml
_JOB = ("hydra.job.name=asib", "hydra.job.num=0", "hydra.job.id=0", "hydra.runtime.output_dir=.")


class OwnFolder(SearchPathPlugin):
    """Hydra looks for a file in the user's own folder of options before conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in folders()[:-1]:
            search_path.prepend("own", f"file://{folder}", "main")


Plugins.instance().register(OwnFolder)
# Our dataclasses check the files of conf/hydra/launcher. The schemas of the same names, which
# hydra-submitit-launcher registers, lack our options.
for _file in ("submitit_local.yaml", "submitit_slurm.yaml"):
    del ConfigStore.instance().repo["hydra"]["launcher"][_file]


@contextmanager
def _hydra(where: Path) -> Iterator[GlobalHydra]:
    """Hydra on the files.

    Raises:
        ConfigError: a file cannot be read or composed; `where` names it.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            yield GlobalHydra.instance()
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
            raise ConfigError([f"{where}: {yaml_reason(error)}"]) from error


@cache
def of_groups(where: tuple[Path, ...], choices: tuple[str, ...]) -> DictConfig:
    """The chosen groups of the folders of options; jobs and trials of one command share them.

    Raises:
        ConfigError: a folder or a file cannot be read.
    """
    if absent := [folder for folder in where if not folder.is_dir()]:
        raise ConfigError([f"{OWN}={absent[0]}: no such folder"])
    with _hydra(where[0]):
        config = compose(ROOT, overrides=list(choices))
    OmegaConf.set_struct(config, False)
    return config


def launcher_values(name: str) -> dict[str, Any]:
    """The values of a file of conf/hydra/launcher.

    Raises:
        ConfigError: it cannot be composed.
    """
    with _hydra(file_of(LAUNCHER, name)):
        words = [f"{LAUNCHER}={name}", *_JOB]
        config = compose(ROOT, overrides=words, return_hydra_config=True)
        found = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    return typing.cast(dict[str, Any], found)


def hydra_part(words: Sequence[str]) -> DictConfig:
    """The group `hydra` of a command with these choices."""
    with _hydra(folders()[0]):
        config = compose(ROOT, overrides=[*words, *_JOB], return_hydra_config=True)
    return typing.cast(DictConfig, config.hydra)


def defaults_list(choices: list[str]) -> Sequence[Any]:
    """The files in the order in which Hydra merges them."""
    with _hydra(folders()[0]) as hydra:
        return hydra.config_loader().compute_defaults_list(ROOT, choices, RunMode.RUN).defaults


def print_info(what: str, choices: list[str]) -> None:
    """What Hydra's `--info` prints: defaults, defaults-tree, searchpath, plugins, config or all."""
    with _hydra(folders()[0]) as hydra:
        assert hydra.hydra is not None
        hydra.hydra.show_info(what, config_name=ROOT, overrides=choices)
