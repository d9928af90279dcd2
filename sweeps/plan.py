"""Plan of a study: stages with what varies, trials, seeds and the expected time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from analysis.words import counted
from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.config.composition import composed
from pipeline.identity import absent_data
from pipeline.session import store_of
from pipeline.stages.matched_budget import commands
from pipeline.stages.plan import (
    Setting,
    duration,
    expected_seconds,
    planned_students,
    show,
    time_of,
    unknown,
)
from sweeps import summary
from sweeps.storage import where
from sweeps.study import Params, Study
from sweeps.trials import TrialStore


def plan(study: Study, given: Sequence[str], workers: int, trial_store: TrialStore | None) -> None:
    """Print what is new, reused and to resume, with times estimated from finished runs.

    `trial_store`: None of a study that has not begun, or whose data set is absent here.
    """
    store = store_of(study.config.runtime)
    runs = list(_runs(study))
    configs, settings = [config for config, _ in runs], [setting for _, setting in runs]
    stages = planned_students(configs or [study.config], store, settings)
    show(stages if configs else [], workers)
    absent = absent_data(study.config)
    if absent and not configs:
        say(unknown(absent))
    key = f"{study.name} (key unknown)" if absent else study.key
    say(f"study    {key}: {counted(study.wanted, 'trial')} x {_seeds(study)}, {study.sampler}")
    if note := _note_on_seeds(study, given):
        say(f"note     {note}")
    if trial_store is not None:
        say(f"so far   {summary.counted(trial_store)}")
        say(f"storage  {where(trial_store.folder)}")
    sampled = study.wanted - max(
        len(study.known_params), 0 if trial_store is None else len(trial_store.begun())
    )
    if study.sampler != "grid" and sampled > 0:
        each = expected_seconds(study.config, store)
        lots = [] if each is None else [each * len(study.seeds)] * sampled
        about = time_of(lots, workers) if lots else duration(None)
        say(f"left     {counted(sampled, 'more trial')} to sample, about {about}")


def commands_of(study: Study, configurations: Iterable[Params]) -> Iterator[list[str]]:
    """The overrides of these configurations at the first seed, each after those of the runs that it
    depends on."""
    for params in configurations:
        overrides = study.overrides(params, study.seeds[0])
        yield from commands(study.at(params, study.seeds[0]), overrides)
        yield overrides


def _runs(study: Study) -> Iterator[tuple[Config, Setting]]:
    """Every run that is known beforehand, with the parameters of its trial."""
    for params in study.known_params:
        for overrides in commands_of(study, [params]):
            for seed in study.seeds:
                yield replace(composed(tuple(overrides)), seed=seed), summary.setting(params)


def _seeds(study: Study) -> str:
    """`seed 3`, or `3 seeds (0, 1, 2)`."""
    listed = ", ".join(map(str, study.seeds))
    return f"{len(study.seeds)} seeds ({listed})" if len(study.seeds) > 1 else f"seed {listed}"


def _note_on_seeds(study: Study, given: Sequence[str]) -> str | None:
    """A note that one number is a seed, not a number of seeds, where it may have been meant so."""
    first, *others = study.seeds
    if others or first == 0 or not any(text.startswith("seeds=") for text in given):
        return None
    return f"seeds={first} is seed {first} alone; list several as in seeds=0,1,2"
