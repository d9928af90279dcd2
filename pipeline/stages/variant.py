"""Variant of a rung: how the configuration of a run differs from its rung's default."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

from pipeline.config import Config, ConfigError, compose
from pipeline.config.groups import options_of
from pipeline.identity import canonical, distill_config
from pipeline.tracking.values import flat


def variant(config: Config) -> str:
    """What differs from the rung's default, as overrides: `method.ib_beta=0.01 optim.lr=0.1`;
    empty for the default itself.

    Compared are the method, the optimiser without its batch, and what view banks keep. The rest is
    no variant of a rung: data, networks, batch, epochs and numerics make the setting, which all
    rungs of a table share.
    The default is that of the bench and of its own budget, or of another budget (`budget=long`)
    with these epochs or fewer differences.
    """
    bench, own = _bench(config), _compared(config)
    found: list[_Default] = []
    for budget in (None, *options_of("budget")):  # composing one takes a tenth of a second
        default = _default(config.cfg, bench, config.overlap, budget)
        if default is None:
            continue
        if default.epochs == config.budget.student_epochs and not default.differences(own):
            return ""
        found.append(default)
    same = [one for one in found if one.epochs == config.budget.student_epochs]
    least = min((one.differences(own) for one in same or found or [_Default({}, 0)]), key=len)
    return " ".join(least)


class _Default(NamedTuple):
    """A rung's own configuration: its compared part, as overrides by key, and its epochs."""

    compared: dict[str, str]
    epochs: int

    def differences(self, own: dict[str, str]) -> list[str]:
        return [f"{key}={value}" for key, value in own.items() if self.compared.get(key) != value]


@cache
def _default(
    cfg: str, bench: str | None, overlap: int | None, budget: str | None
) -> _Default | None:
    """The default of a rung at a bench, an overlap of its teachers and a budget; None where it has
    none with this budget."""
    rung = f"cfg={cfg}" if cfg in options_of("cfg") else f"method={cfg}"
    chosen = {"bench": bench, "overlap": overlap, "budget": budget}
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    try:
        config = compose([rung, *given])
    except ConfigError:
        return None
    return _Default(_compared(config), config.budget.student_epochs)


def _bench(config: Config) -> str | None:
    """The bench that a configuration was composed with; None where its name is the user's own."""
    name = config.bench.name.removesuffix(f"-{config.data.name}")
    known = options_of("bench")
    return next((one for one in (config.bench.name, name) if one in known), None)


def _compared(config: Config) -> dict[str, str]:
    optim = {key: value for key, value in canonical(config.optim).items() if key != "batch"}
    parts = {
        "method": canonical(config.method),
        "optim": optim,
        "bank": canonical(distill_config(config).bank),
    }
    return {key: _word(value) for key, value in flat(parts)}


def _word(value: Any) -> str:
    """A value as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
