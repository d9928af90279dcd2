"""Distillation methods by name. A new one is a file here, a YAML, and a line in this dict."""

from trainers.methods.asib import Asib
from trainers.methods.base import Method

METHODS: dict[str, type[Method]] = {"asib": Asib}
