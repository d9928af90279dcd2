"""The run of the local store that a key, the beginning of one, a name or a rung means."""

from __future__ import annotations

import re

from analysis import tags
from analysis.selection.run_lookup import RunNames, matching, unknown
from analysis.words import separated
from pipeline.config import ConfigError
from pipeline.identity import KEY_LENGTH
from pipeline.session import Session
from pipeline.storage.run_record import RunSpec
from pipeline.storage.run_store import RunFolder, if_intact

KEY = re.compile(rf"[0-9a-f]{{4,{KEY_LENGTH}}}")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
STAGES = {"distill": "student", "finetune": "teacher"}  # stage -> name of its weights
_LISTED = 8


def folder_of(text: str, session: Session) -> RunFolder:
    """The run of the store that run=text means.

    Raises:
        ConfigError: no such run, or several.
    """
    folders = [folder for folder in session.store.runs() if folder.stage in STAGES]
    specs = {folder: if_intact(folder.spec) for folder in folders}
    names = [_names(folder, specs[folder]) for folder in folders]
    found = [folders[position] for position in matching(text, names)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = _listed({folder: specs[folder] for folder in found})
        raise ConfigError([f"run={text}: {len(found)} runs match: {listed}; give the key of one"])
    where = f" in the store {session.store.root} (runtime.store=FOLDER: another)"
    known = f"; it holds {_listed(specs) or 'no run'}"
    files = f"; nor is it an MLflow run id (32 digits) or a file ({', '.join(SUFFIXES)})"
    raise ConfigError([f"run={unknown(text, names, where)}{known}{files}"])


def _names(folder: RunFolder, spec: RunSpec | None) -> RunNames:
    rung = spec.tags.get(tags.RUNG, "") if spec else ""
    return RunNames(folder.stage, folder.key, _name(folder, spec), rung)


def _listed(specs: dict[RunFolder, RunSpec | None]) -> str:
    folders = list(specs)
    names = [_name(*pair) for pair in specs.items()]
    if len(folders) > 1 and len(set(names)) == 1:  # by overrides that not all have
        words = [_overrides(spec) for spec in specs.values()]
        names = [" ".join(w for w in of if not all(w in other for other in words)) for of in words]
    shown = [f"{folder.key} ({text})" for folder, text in zip(folders, names, strict=True)]
    listed = ", ".join(shown[:_LISTED])
    return listed + (f" and {len(folders) - _LISTED} more" if len(folders) > _LISTED else "")


def _overrides(spec: RunSpec | None) -> list[str]:
    return separated(spec.params.get("overrides", "")) if spec else []


def _name(folder: RunFolder, spec: RunSpec | None) -> str:
    return spec.name if spec else folder.stage
