"""The launch run around the work of a command: ended with the status of its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.cli.console import say
from pipeline.config.errors import ConfigError
from pipeline.outcome import error_tags, last_line, outcome
from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import REFUSES
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.view import view

log = logging.getLogger("pipeline")


def check(target: TrackingTarget) -> None:
    """Ask the tracking store whether it accepts us. One that is away costs nothing; one that takes
    no files is reported.

    Raises:
        ConfigError: it refuses.
    """
    answer = acceptance(target)
    if answer.kind == REFUSES:
        raise ConfigError([answer.sentence])
    if answer.artifacts:
        log.warning("%s; parameters, metrics and statuses are sent", answer.artifacts)


@contextmanager
def launch_run(
    target: TrackingTarget, end: Callable[[str, dict[str, str]], None] | None = None
) -> Iterator[None]:
    """The launch run of a block. `end` (by default the tracking target's) receives the status and
    the tags of the error. A tracking store that cannot be reached is reported, never fatal.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        status = outcome(error).launch
        if status is None:
            target.leave_launch()
        else:
            try:
                (end or target.end_launch)(status, error_tags(error))
                if error is None and end is None:
                    say(f"look:     {view(target)}")
            except Exception as away:  # noqa: BLE001 - reported; the next command may end it
                reason = last_line(away)[:200]
                log.warning("the launch run could not be ended: %s", reason)
