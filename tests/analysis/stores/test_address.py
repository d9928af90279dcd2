"""Addresses without user name and password."""

import pytest

from analysis.stores.address import redacted


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:secret@host:5000/path", "https://host:5000/path"),
        ("postgresql://user@host/db", "postgresql://host/db"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_user_and_password_are_left_out(address: str, shown: str) -> None:
    assert redacted(address) == shown
