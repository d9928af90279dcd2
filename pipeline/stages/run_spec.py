"""Description of a stage run, made of its configuration when it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from analysis import tags
from analysis.words import joined
from pipeline.config import Config
from pipeline.identity import key_of, splits
from pipeline.session import Session, device_name
from pipeline.stages import provenance
from pipeline.storage.run_record import RunSpec
from pipeline.tracking.values import flat, now_ms
from trainers.finetune import TeacherConfig


def run_spec(
    config: Config,
    session: Session,
    *,
    name: str,
    identity: Mapping[str, Any],
    run_tags: Mapping[str, str],
    teacher: TeacherConfig | None = None,
) -> RunSpec:
    """The description of a run that starts now; of a teacher's run with that teacher alone."""
    plain, overrides = asdict(config), session.overrides
    if teacher is not None:
        plain["teacher"] = {"0": asdict(teacher)}
    return RunSpec(
        name=name,
        time=now_ms(),
        identity=dict(identity),
        config=plain,
        params=_params(plain) | {"overrides": joined(overrides)},
        tags={
            tags.BENCH: config.bench.name,
            tags.RUN_KEY: key_of(dict(identity)),
            tags.GIT: provenance.git_revision(),
            tags.DEVICE: device_name(session.device),
            tags.TORCH: provenance.versions()["torch"],
            **({tags.LAUNCHER: session.target.launcher} if session.target.launcher else {}),
            **run_tags,
        },
        texts=_texts(config, overrides),
        versions=provenance.versions(),
        data={"name": config.data.name, "digest": splits(config.data).digest},
    )


def overlap_tag(config: Config) -> dict[str, str]:
    """The overlap of specialised teachers; full teachers have none."""
    whole = config.overlap in (None, 100)
    return {} if whole else {tags.OVERLAP: str(config.overlap)}


def _texts(config: Config, overrides: list[str]) -> dict[str, str]:
    """Files that are logged with a run, by name."""
    sources, diff = splits(config.data).sources, provenance.git_diff()
    files = {
        "config.yaml": yaml.safe_dump(asdict(config), sort_keys=False),
        "overrides.txt": "\n".join(overrides) + "\n",
        "versions.json": json.dumps(provenance.versions(), indent=1),
        "git.diff": diff,
        "data_files.txt": "".join(f"{digest}  {name}\n" for name, digest in sources),
    }
    return {name: text for name, text in files.items() if text}


def _params(plain: dict[str, Any]) -> dict[str, str]:
    """Dotted parameters; the bench's name as plain `bench`, which is how people filter."""
    found = {key: str(value) for key, value in flat(plain)}
    return {"bench": found.pop("bench.name"), **found}
