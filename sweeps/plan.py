"""What a study would run: stages with what varies, trials and seeds, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.session import store_of
from pipeline.stages.matched_budget import commands
from pipeline.stages.plan import (
    Setting,
    duration,
    expected_seconds,
    planned_students,
    show,
    time_of,
)
from sweeps import summary
from sweeps.storage import where
from sweeps.study import Point, Study, composed
from sweeps.trials import TrialStore


def plan(study: Study, typed: Sequence[str], workers: int, trial_store: TrialStore | None) -> None:
    """Print what is new, reused and to resume, with the time that finished runs of the kind say.
    `trial_store`: None of a study that has not begun."""
    store = store_of(study.config.runtime)
    runs = list(_runs(study))
    configs, settings = [config for config, _ in runs], [setting for _, setting in runs]
    stages = planned_students(configs or [study.config], store, settings)
    show(stages if configs else [], workers)
    say(f"study    {study.key}: {study.wanted} trials x {_seeds(study)}, {study.sampler}")
    if note := _note_on_seeds(study, typed):
        say(f"note     {note}")
    if trial_store is not None:
        say(f"so far   {summary.counted(trial_store)}")
        say(f"storage  {where(trial_store.folder)}")
    drawn = study.wanted - max(
        len(study.points), 0 if trial_store is None else len(trial_store.begun())
    )
    if study.sampler != "grid" and drawn > 0:
        each = expected_seconds(study.config, store)
        lots = [] if each is None else [each * len(study.seeds)] * drawn
        about = time_of(lots, workers) if lots else duration(None)
        say(f"to draw  {drawn} more trials, about {about}")


def commands_of(study: Study, points: Iterable[Point]) -> Iterator[list[str]]:
    """The command lines of these points at the first seed, each after those of the runs that it
    follows from."""
    for point in points:
        overrides = study.overrides(point, study.seeds[0])
        yield from commands(study.at(point, study.seeds[0]), overrides)
        yield overrides


def _runs(study: Study) -> Iterator[tuple[Config, Setting]]:
    """Every run that is known beforehand, with what its trial sets."""
    for point in study.points:
        for overrides in commands_of(study, [point]):
            for seed in study.seeds:
                yield replace(composed(tuple(overrides)), seed=seed), summary.setting(point)


def _seeds(study: Study) -> str:
    """`seed 3`, or `3 seeds (0, 1, 2)`."""
    listed = ", ".join(map(str, study.seeds))
    return f"{len(study.seeds)} seeds ({listed})" if len(study.seeds) > 1 else f"seed {listed}"


def _note_on_seeds(study: Study, typed: Sequence[str]) -> str | None:
    """That one number is no count of seeds, where it may have been typed as one."""
    first, *others = study.seeds
    if others or first == 0 or not any(text.startswith("seeds=") for text in typed):
        return None
    return f"seeds={first} is seed {first} alone; several are listed, as in seeds=0,1,2"
