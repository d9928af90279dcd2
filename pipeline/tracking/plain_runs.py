"""Records of runs that have no run folder: launches, evaluations, reports, studies and trials.

A record is the truth of its run, as the run folder is of a stage run: it is written before
anything is sent, and `sync` makes the tracking store equal to it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from analysis import tags
from pipeline.storage.atomic import write_atomic
from pipeline.tracking.values import now_ms

log = logging.getLogger("pipeline")

FOLDER = "launches"
LAUNCH_STAGE, STUDY_STAGE, TRIAL_STAGE = "launch", "study", "trial"
EVALUATE_STAGE, REPORT_STAGE = "evaluate", "analyze"
COMMAND = "command"  # tag of the runs that one call of a verb makes, one of each stage
_OF_STUDIES = (STUDY_STAGE, TRIAL_STAGE)
_TYPES = (*((name, dict) for name in ("tags", "params", "numbers", "data")), ("former", list))
_DAMAGED = (OSError, ValueError, TypeError, AttributeError, RecursionError)
_ORDER = (LAUNCH_STAGE, STUDY_STAGE, TRIAL_STAGE, EVALUATE_STAGE, REPORT_STAGE)


@dataclass
class PlainRun:
    """One run in one experiment of one store. The lease of its folder, or of `leased`, is held as
    long as its process works on it."""

    folder: str
    where: str  # the store, without password
    experiment: str  # name, or "#" and id
    verb: str
    command: str
    stage: str = LAUNCH_STAGE
    name: str = ""
    leased: str = ""  # another folder whose lease tells whether the run's process lives
    run_id: str | None = None
    former: list[str] = field(default_factory=list)  # ids that it had in the store before
    parent: str | None = None  # id
    status: str | None = None  # None: its process works on it, or was killed
    time: int | None = None  # ms, of the end
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)  # metrics, at step 0
    data: dict[str, str] = field(default_factory=dict)  # name and digest of the data set
    files: bool = False  # `files` holds the files of the run
    students: list[str] = field(default_factory=list)  # of a trial: keys of its students

    @property
    def file(self) -> Path:
        label = self.tags.get(tags.TRIAL)
        return Path(self.folder, f"{self.stage}.json" if label is None else f"trial-{label}.json")

    @property
    def files_folder(self) -> Path:
        return Path(self.folder, f"{self.stage}-files")

    @property
    def identity(self) -> dict[str, str]:
        """The tags that no other run has."""
        if self.stage in _OF_STUDIES:
            names = (tags.STUDY, tags.TRIAL)
            of_study = {name: self.tags[name] for name in names if name in self.tags}
            return {tags.STAGE: self.stage} | of_study
        return {tags.STAGE: self.stage, COMMAND: self.command}

    @property
    def lease_folder(self) -> Path:
        held = Path(self.leased)
        return held if self.leased and held.is_dir() else Path(self.folder)

    def is_of(self, study: PlainRun) -> bool:
        """Whether a trial is one of a study, in the same experiment."""
        return Path(self.folder) == Path(study.folder)

    def is_now(self, run_id: str) -> None:
        """The run's id in the store, in place of the one that it had."""
        if self.run_id not in (None, run_id):
            self.former.append(str(self.run_id))
        self.run_id = run_id

    def ended(self, status: str, run_tags: Mapping[str, str]) -> None:
        """The end of the run; of one that had this end before, it keeps the time."""
        if self.status != status:
            self.status, self.time = status, now_ms()
        self.tags |= run_tags

    def write_files(self, texts: Mapping[str, str], pictures: Mapping[str, bytes]) -> None:
        """The files of the run, in place of earlier ones."""
        files = {name: text.encode() for name, text in texts.items()} | dict(pictures)
        for name, data in files.items():
            write_atomic(self.files_folder / name, data)
        self.files = True

    def save(self) -> None:
        write_atomic(self.file, json.dumps(asdict(self)).encode())

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def read(file: Path) -> PlainRun | None:
    """The record of a file; None where there is none, and, with a warning, for one that is
    damaged."""
    try:
        return _parsed(file)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        log.warning("%s is damaged: %s", file, error)
        return None


def _parsed(file: Path) -> PlainRun:
    body = json.loads(file.read_bytes())
    body["run_id"] = body.pop("launch_id", None) or body.get("run_id")  # of an older version
    run = PlainRun(**{**body, "folder": str(file.parent)})
    if run.stage not in _ORDER or any(type(getattr(run, k)) is not t for k, t in _TYPES):
        raise ValueError("is no record of a run")
    return run


def _is_damaged(file: Path) -> bool:
    try:
        _parsed(file)
    except FileNotFoundError:
        return False
    except _DAMAGED:
        return True
    return False


def plain_runs(lock_folder: Path, where: str) -> list[PlainRun]:
    """All runs without a run folder that are, or should be, in a store: parents first."""
    found = [read(path) for path in sorted(lock_folder.glob(f"{FOLDER}/*/*.json"))]
    here = [run for run in found if run is not None and run.where == where]
    return sorted(here, key=lambda run: _ORDER.index(run.stage))


def damaged(lock_folder: Path) -> dict[Path, dict[str, str]]:
    """Files of records that are damaged: the tags of their runs, by the names of the files."""
    found = {}
    for file in sorted(lock_folder.glob(f"{FOLDER}/*/*.json")):
        if not _is_damaged(file):
            continue
        stage, _, label = file.stem.partition("-")
        of_study = {tags.STUDY: file.parent.name.rpartition("-")[0]}
        of_trial = {tags.TRIAL: label} if label else {}
        own = of_study | of_trial if stage in _OF_STUDIES else {COMMAND: file.parent.name}
        found[file] = {tags.STAGE: stage} | own
    return found
