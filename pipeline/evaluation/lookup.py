"""Which run of the local store is meant: by a run key, the beginning of one, or a name."""

from __future__ import annotations

import re

from pipeline.config import ConfigError
from pipeline.identity import KEY_LENGTH
from pipeline.session import Session
from pipeline.storage.run_store import RunFolder

KEY = re.compile(rf"[0-9a-f]{{4,{KEY_LENGTH}}}")
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
STAGES = {"distill": "student", "finetune": "teacher"}  # stage -> name of its weights
_LISTED = 8


def folder_of(text: str, session: Session) -> RunFolder:
    """The run of the store that run=text means.

    Raises:
        ConfigError: no such run, or several.
    """
    return (_folder_of_key if KEY.fullmatch(text) else _folder_of_name)(text, session)


def _folder_of_key(text: str, session: Session) -> RunFolder:
    folders = _networks(session)
    found = [folder for folder in folders if folder.key.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            [f"run={text}: {len(found)} keys begin so: {_listed(found)}; give more of it"]
        )
    raise ConfigError([f"run={text}: no such key in {_holding(folders, session)}"])


def _folder_of_name(text: str, session: Session) -> RunFolder:
    """By its name. For a part of one (a rung), or a name of several runs, the keys are listed."""
    folders = _networks(session)
    found = [folder for folder in folders if _name(folder) == text]
    if len(found) == 1:
        return found[0]
    near = found or [one for one in folders if f"-{text}-" in f"-{_name(one)}-"]
    if near:
        word = "of that name" if found else f"of {text}"
        raise ConfigError([f"run={text}: give the key of one run {word}: {_listed(near)}"])
    raise ConfigError(
        [
            f"run={text}: neither an MLflow run id (32 hexadecimal digits), nor a run key "
            f"({KEY_LENGTH}, or at least its first 4), nor a file ({', '.join(SUFFIXES)}), "
            f"nor a name in {_holding(folders, session)}"
        ]
    )


def _networks(session: Session) -> list[RunFolder]:
    return [folder for folder in session.store.runs() if folder.stage in STAGES]


def _holding(folders: list[RunFolder], session: Session) -> str:
    listed = _listed(folders) or "nothing"
    return f"the store {session.store.root}, which holds: {listed} (runtime.store=FOLDER: another)"


def _listed(folders: list[RunFolder]) -> str:
    names = [_name(folder) for folder in folders]
    if len(folders) > 1 and len(set(names)) == 1:  # by overrides that not all have
        words = [_overrides(folder) for folder in folders]
        names = [" ".join(w for w in of if not all(w in other for other in words)) for of in words]
    shown = [f"{folder.key} ({text})" for folder, text in zip(folders, names, strict=True)]
    listed = ", ".join(shown[:_LISTED])
    return listed + (f" and {len(folders) - _LISTED} more" if len(folders) > _LISTED else "")


def _overrides(folder: RunFolder) -> list[str]:
    spec = folder.spec()
    return spec.params.get("overrides", "").split() if spec else []


def _name(folder: RunFolder) -> str:
    spec = folder.spec()
    return spec.name if spec else folder.stage
