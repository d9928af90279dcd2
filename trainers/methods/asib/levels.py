"""Freezing levels of the stages: listed stage by stage, or by the fraction at which each begins."""

from __future__ import annotations


def of_stages(levels: list[int], starts: list[float] | None, stages: int) -> list[int] | None:
    """The level of every stage, one value where all are the same; None where the list fits no form.

    A list has one level for all stages, one for every stage, or one for each of `starts`: the
    fractions of the stages from which it holds.
    """
    if starts is not None and len(levels) == len(starts) > 1:
        begun = [sum(start * stages <= stage + 1e-9 for start in starts) for stage in range(stages)]
        found = [levels[max(count, 1) - 1] for count in begun]
    elif len(levels) in (1, stages):
        found = levels
    else:
        return None
    return found[:1] if len(set(found)) == 1 else found


def level_of(levels: list[int], stage: int) -> int:
    """The level of a stage: its own, or the one for all stages."""
    return levels[min(stage, len(levels) - 1)]


def errors(name: str, levels: list[int], starts: list[float] | None, stages: int) -> list[str]:
    """What is wrong with the levels of option `name` for a method of so many stages."""
    found = of_stages(levels, starts, stages)
    if not levels:
        return [f"{name}=[]: at least one level needed"]
    if found is None:
        also = "" if starts is None else f"one for each of method.level_starts={starts}, "
        return [
            f"{name}={levels}: {len(levels)} levels for {stages} stages (method.num_stages): "
            f"give one for every stage, {also}or one for all"
        ]
    if starts is not None and len(levels) == len(starts) and len(set(levels)) > len(set(found)):
        return [
            f"{name}={levels} with method.level_starts={starts}: a level begins in none of "
            f"{stages} stage{'s' * (stages != 1)} (method.num_stages)"
        ]
    return []


def start_errors(starts: list[float] | None) -> list[str]:
    """Contradictions within `method.level_starts`."""
    rises = starts is None or (starts == sorted(set(starts)) and starts[:1] == [0.0])
    if rises and (starts is None or starts[-1] < 1):
        return []
    return [f"method.level_starts={starts}: fractions that rise from 0 and stay below 1"]
