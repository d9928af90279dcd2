"""What a command would run: every stage with its key, what is already there, and about how long.

Times are estimated from finished runs of the same kind on the same data in the local store, by
their seconds an epoch; where there is none, none is given. Where the data set is absent, as it may
be on a login node, the stages are listed without keys, states and times.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from analysis import tags
from pipeline.cli.console import out, say
from pipeline.config import Config
from pipeline.identity import absent_data, digest_of, identity, key_of, own_teacher, teacher_numbers
from pipeline.stages.names import kind_of, run_kind, run_name, without_seed
from pipeline.stages.room import Rooms
from pipeline.stages.view_bank import (
    bank_key,
    bank_record,
    has_banks,
    in_bytes,
    is_made,
    missing_bytes,
)
from pipeline.storage.run_store import DamagedRun, RunFolder, Store, if_intact
from trainers import metrics

FINISHED, UNKNOWN = "finished", "unknown"

Setting = tuple[tuple[str, str], ...]  # (option, value): how a run differs from others of its name


class Planned(NamedTuple):
    """One stage. `seconds`: what is left of it; None: nothing like it has run yet. `setting`:
    that in which all runs which need the stage agree."""

    name: str
    key: str | None  # None: not known before other runs are finished, or without the data set
    state: str  # finished | to resume after epoch 12 | new | after L4 and CE | unknown
    seconds: float | None
    setting: Setting = ()
    absent: str = ""  # why the data set cannot be read, where it cannot
    room: str = ""  # what its teachers know, where a finished run has measured it
    disk: int = 0  # bytes of a view bank that are still to be written


Kind = tuple[str, str]  # what a stage is called, without its seed, and the digest of its data


class Past(NamedTuple):
    """What finished runs tell: seconds an epoch (of view banks in all), and their room."""

    seconds: dict[Kind, list[float]]
    rooms: Rooms


def planned_students(
    configs: Iterable[Config], store: Store, settings: Iterable[Setting] | None = None
) -> list[Planned]:
    """The stages that distilling these configurations takes, each once: teachers, their view
    banks, students. `settings`: how the configurations differ, one each."""
    past, found = _past(store), dict[str, Planned]()
    for config, setting in zip(configs, settings or repeat(()), strict=False):
        for key, stage in _stages(config, store, past).items():
            before = found[key].setting if key in found else setting
            common = tuple(pair for pair in setting if pair in before)
            found[key] = stage._replace(setting=common)
    return list(found.values())


def _stages(config: Config, store: Store, past: Past) -> dict[str, Planned]:
    """Of one student, by key."""
    numbers = teacher_numbers(config)
    found = _teachers(config, numbers, store, past) | _banks(config, numbers, store, past)
    absent = absent_data(config)
    what = identity("distill", config, options_only=bool(absent))
    kind, name, key = run_kind("distill", config), run_name("distill", config), key_of(what)
    if (own := own_teacher(config)) is not None:
        found |= _stages(own, store, past)
    if config.budget.matched_to is not None:
        after = f"after {config.budget.matched_to} and CE"
        return found | {key: Planned(name, None, after, None, absent=absent)}
    expected = _expected(past, kind, what)
    student = _planned(name, store.run("distill", key), expected, absent)
    room = "" if absent or not numbers else past.rooms.line(what)
    return found | {key: student._replace(room=room)}


def planned_teachers(config: Config, numbers: Iterable[int], store: Store) -> list[Planned]:
    """The stages that fine-tuning these teachers takes."""
    return list(_teachers(config, numbers, store, _past(store)).values())


def planned_banks(config: Config, numbers: Iterable[int], store: Store) -> list[Planned]:
    """What making the view banks of these teachers takes."""
    past, numbers = _past(store), list(numbers)
    found = _teachers(config, numbers, store, past) | _banks(config, numbers, store, past)
    return list(found.values())


def expected_seconds(config: Config, store: Store) -> float | None:
    """Seconds of a student of this kind, from finished runs; None without runs or data."""
    if absent_data(config):
        return None
    return _expected(_past(store), run_kind("distill", config), identity("distill", config))


def show(stages: list[Planned], workers: int = 1) -> None:
    """The plan as a table, with its sum and what `workers` make of it."""
    out.print(_table(stages))
    left = [stage for stage in stages if stage.state != FINISHED]
    lots = _lots(left)
    unseen = sum(stage.seconds is None for stage in left)
    known = [time_of(lots, workers)] if lots else []
    open_ = [f"{unseen} of a kind that has not run here yet"] if unseen else []
    about = f": {', and '.join([*known, *open_])}" if left else ""
    for absent in dict.fromkeys(stage.absent for stage in stages if stage.absent):
        say(unknown(absent))
    if size := sum(stage.disk for stage in stages):
        say(f"view banks to make: {in_bytes(size)} of disk")
    for room in dict.fromkeys(stage.room for stage in stages if stage.room):
        say(room)
    if not any(stage.absent for stage in stages):
        say(f"{len(stages) - len(left)} finished, {len(left)} to run{about}")


def unknown(absent: str) -> str:
    """The line of a plan that says what is unknown, and why the data set cannot be read."""
    return f"unknown here: keys, finished runs and times, because {absent}"


def _table(stages: list[Planned]) -> Table:
    """The column of what varies is shown where names repeat."""
    names_repeat = len({stage.name for stage in stages}) < len(stages)
    varied = ["what varies"] if names_repeat and any(stage.setting for stage in stages) else []
    table = Table(box=None, pad_edge=False)
    for head in ("stage", "key", "state", *varied, "about"):
        table.add_column(
            head, justify="right" if head == "about" else "left", no_wrap=head in ("stage", "key")
        )
    for stage in stages:
        setting = " ".join(f"{key}={value}" for key, value in stage.setting)
        about = "" if stage.state == FINISHED else duration(stage.seconds)
        key = stage.key or (UNKNOWN if stage.absent else "later")
        table.add_row(stage.name, key, stage.state, *varied and [setting], about)
    return table


def _lots(stages: list[Planned]) -> list[float]:
    """Known seconds of what one worker does at a stretch: the stages of one setting, or one stage
    that has none."""
    found: dict[object, float] = {}
    for stage in stages:
        if stage.seconds is not None:
            lot = stage.setting or stage.key
            found[lot] = found.get(lot, 0.0) + stage.seconds
    return list(found.values())


def time_of(lots: list[float], workers: int) -> str:
    """`9 min`, or `9 min of training, about 5 min with 2 workers`: no lot is shared by two."""
    total = sum(lots)
    if workers == 1:
        return duration(total)
    least = max(total / workers, *lots)
    return f"{duration(total)} of training, about {duration(least)} with {workers} workers"


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3.4 h`; `?` where nothing is known."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _teachers(
    config: Config, numbers: Iterable[int], store: Store, past: Past
) -> dict[str, Planned]:
    found, absent = {}, absent_data(config)
    for number in numbers:
        kind, name = (make("finetune", config, number) for make in (run_kind, run_name))
        what = identity("finetune", config, teacher=number, options_only=bool(absent))
        folder = store.run("finetune", key_of(what))
        found[folder.key] = _planned(name, folder, _expected(past, kind, what), absent)
    return found


def _banks(config: Config, numbers: Iterable[int], store: Store, past: Past) -> dict[str, Planned]:
    found, absent = {}, absent_data(config)
    for number in numbers if has_banks(config) else []:
        kind, name = (make("bank", config, number) for make in (run_kind, run_name))
        if absent:
            teacher = identity("finetune", config, teacher=number, options_only=True)
            key = digest_of([teacher, vars(config.data)])
            found[key] = Planned(name, None, UNKNOWN, None, absent=absent)
            continue
        key = bank_key(config, number)
        made = is_made(store, key)
        of_all = past.seconds.get((kind, ""))
        seconds = 0.0 if made else median(of_all) if of_all else None
        state, size = FINISHED if made else "new", missing_bytes(config, number, store)
        found[key] = Planned(name, key, state, seconds, disk=size)
    return found


def _planned(name: str, folder: RunFolder, expected: float | None, absent: str) -> Planned:
    if absent:
        return Planned(name, None, UNKNOWN, None, absent=absent)
    try:
        result = folder.result()
        if result is not None and not (faults := folder.weights_faults(result)):
            return Planned(name, folder.key, FINISHED, 0.0)
    except DamagedRun as error:
        return Planned(name, folder.key, f"cannot be used: {error}", None)
    if result is not None:
        lost = f"to restore, or to train again: {'; '.join(faults.values())}"
        return Planned(name, folder.key, lost, expected)
    commit = folder.latest() if folder.path.is_dir() else None
    if commit is None:
        return Planned(name, folder.key, "new", expected)
    done = sum(entry["metrics"][metrics.EPOCH_SECONDS] for entry in commit.history)
    left = None if expected is None else max(0.0, expected - done)
    return Planned(name, folder.key, f"to resume after epoch {len(commit.history)}", left)


def _expected(past: Past, kind: str, what: dict[str, Any]) -> float | None:
    """Seconds of a stage of this identity."""
    of_epoch = past.seconds.get((kind, what["data"]))
    return median(of_epoch) * _epochs(what) if of_epoch else None


def _epochs(what: dict[str, Any]) -> int:
    """Epochs of both steps, from the identity of a stage; 1 where it has none (a file)."""
    config = what["config"]
    budget = config.get("budget") or config["teacher"].get("recipe") or {}
    counts = [budget.get(name, 0) for name in ("student_epochs", "adapt_epochs", "epochs")]
    return max(1, sum(counts))


def _past(store: Store) -> Past:
    """Seconds and room of the finished runs and view banks of the store."""
    found = Past({}, Rooms())
    for folder in store.runs():
        claimed = _bank_time(folder) if folder.stage == "bank" else _run_time(folder, found.rooms)
        if claimed is not None:
            found.seconds.setdefault(claimed[0], []).append(claimed[1])
    return found


def _bank_time(folder: RunFolder) -> tuple[Kind, float] | None:
    done = bank_record(folder)
    if done is None or not done.name:  # a bank of an older version
        return None
    return (without_seed(done.name), ""), done.seconds


def _run_time(folder: RunFolder, rooms: Rooms) -> tuple[Kind, float] | None:
    """Seconds an epoch, without the banks, which are planned on their own; adds its room."""
    result, spec = if_intact(folder.result), if_intact(folder.spec)
    if result is None or spec is None:
        return None
    if folder.stage == "distill":
        rooms.add(spec, result)
    run_tags, values = spec.tags, result.metrics
    what = run_tags[tags.STUDENT if folder.stage == "finetune" else tags.RUNG]
    banks = values.get(metrics.BANK_SECONDS) or 0.0
    kind = kind_of(folder.stage, what, run_tags[tags.BENCH]), spec.identity["data"]
    return kind, (values[metrics.RUN_SECONDS] - banks) / _epochs(spec.identity)
