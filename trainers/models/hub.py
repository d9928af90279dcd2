"""Fetching published weights from the hub that timm uses: one try, no messages of its client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 5


@contextmanager
def one_try() -> Iterator[None]:
    """Ask the hub once whether it is there. Where it is not, weights come from this machine's cache
    at once; its client would try twelve times, for most of a minute.

    Raises:
        ConnectionError: the hub cannot be reached, and the weights are not in the cache.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    before, away = constants.HF_HUB_OFFLINE, None
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception as error:  # noqa: BLE001 - no matter why: the cache is read
        away = error
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    except LocalEntryNotFoundError as error:
        if away is None:
            raise
        reason = str(away).splitlines()[0]
        raise ConnectionError(
            f"{constants.ENDPOINT} cannot be reached ({reason}), and they are not in the cache "
            f"{constants.HF_HUB_CACHE}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before
