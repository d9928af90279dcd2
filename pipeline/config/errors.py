"""The error that lists everything that is wrong in what the user gave; it needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainers.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.schema import Config


class ConfigError(UserError):
    """Errors in what the user gave, all of them in one message. `config`: what could be composed
    in spite of them, with defaults in the place of wrong values."""

    def __init__(self, errors: list[str], config: Config | None = None) -> None:
        self.errors, self.config = errors, config
        head = f"{len(errors)} error{'s' if len(errors) > 1 else ''}:"
        super().__init__("\n".join([head, *(f"  - {error}" for error in errors)]))

    @classmethod
    def of(cls, error: ValueError) -> ConfigError:
        """The error of an analysis as one of its options; a store that does not answer is no
        error of the user's, and its message is kept as it is."""
        found = cls(str(error).split("\n"))
        if isinstance(error, ConnectionError):
            found.args = (str(error),)
        return found
