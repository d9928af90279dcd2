"""The tracking stores of the end-to-end tests."""

from tests.end_to_end.conftest import clean, schema

__all__ = ["clean", "schema"]
