"""Measurements that people run by hand; nothing here is part of a run."""

import pipeline  # noqa: F401 - says how threads wait, which must be said before torch loads
