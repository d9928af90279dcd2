"""Measurements that people run by hand; nothing here is part of a run."""

import pipeline  # noqa: F401 - sets how threads wait, which counts only before torch is imported
