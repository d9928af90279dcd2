"""Variant of a rung: how the configuration of a run differs from its rung's default."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pipeline.config import Config, compose
from pipeline.config.groups import options_of
from pipeline.identity import canonical
from pipeline.tracking.upload import flat


def variant(config: Config) -> str:
    """What differs from the rung's default, as overrides: `method.ib_beta=0.01 optim.lr=0.1`;
    empty for the default itself.

    Compared are the method and the optimiser without its batch. The rest is no variant of a rung:
    data, networks, batch, epochs and numerics make the setting, which all rungs of a table share.
    The default is that of the bench and of its own budget, or of another budget (`budget=long`)
    with these epochs or fewer differences.
    """
    bench = _bench(config)
    if not (least := _differences(config, bench, None)):
        return ""
    found = [_differences(config, bench, budget) for budget in options_of("budget")]
    epochs = [_default(config.cfg, bench, budget)[1] for budget in options_of("budget")]
    same = [
        one for one, of in zip(found, epochs, strict=True) if of == config.budget.student_epochs
    ]
    return " ".join(min([*same] or [least, *found], key=len))


def _differences(config: Config, bench: str | None, budget: str | None) -> list[str]:
    default, _ = _default(config.cfg, bench, budget)
    own = _compared(config)
    return [f"{key}={value}" for key, value in own.items() if default.get(key) != value]


@cache
def _default(cfg: str, bench: str | None, budget: str | None) -> tuple[dict[str, str], int]:
    """The compared part of a rung's own configuration at a bench and budget, and its epochs."""
    rung = f"cfg={cfg}" if cfg in options_of("cfg") else f"method={cfg}"
    chosen = {"bench": bench, "budget": budget}
    config = compose([rung, *(f"{key}={name}" for key, name in chosen.items() if name)])
    return _compared(config), config.budget.student_epochs


def _bench(config: Config) -> str | None:
    """The bench that a configuration was composed with; None where its name is the user's own."""
    name = config.bench.name.removesuffix(f"-{config.data.name}")
    known = options_of("bench")
    return next((one for one in (config.bench.name, name) if one in known), None)


def _compared(config: Config) -> dict[str, str]:
    optim = {key: value for key, value in canonical(config.optim).items() if key != "batch"}
    return {
        key: _word(value)
        for key, value in flat({"method": canonical(config.method), "optim": optim})
    }


def _word(value: Any) -> str:
    """A value as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
