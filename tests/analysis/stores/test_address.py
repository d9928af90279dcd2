"""Addresses and texts without credentials."""

import pytest

from analysis.stores.address import credentials, hidden, redacted


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:secret@host:5000/path", "https://host:5000/path"),
        ("https://user:se/cr@et@host:5000/path", "https://host:5000/path"),
        ("https://12:34/5@host", "https://host"),
        ("postgresql://user@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=u&password=x", "postgresql://host/db?user=***&password=***"),
        ("postgresql://host/db?sslmode=require", "postgresql://host/db?sslmode=require"),
        ("https://host/path?key=abc", "https://host/path?key=***"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
        ("sqlite:////data/c:a@b/mlflow.db", "sqlite:////data/c:a@b/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_user_password_and_tokens_are_left_out(address: str, shown: str) -> None:
    assert redacted(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        "http://user:s3cr/et@x@host:5000",
        "postgresql+psycopg://user:s3cr/et@x@host/db?sslmode=require",
        "postgresql://host/db?password=s3cr/et@x",
        "https://host/path?t=s3cr%2Fet%40x",
    ],
)
def test_no_form_of_a_password_is_left_in_a_text(address: str) -> None:
    texts = [
        f"request to {address} failed",
        "password s3cr/et@x refused",
        "/?next=s3cr%2Fet%40x",
        "quoted s3cr/et%40x",
    ]
    for variable in ("MLFLOW_TRACKING_URI", "ASIB_STUDY_STORAGE"):
        for text in texts:
            assert "s3cr" not in hidden(text, {variable: address})


def test_a_plain_secret_and_other_addresses_are_hidden_too() -> None:
    environment = {"MLFLOW_TRACKING_TOKEN": "abcdef"}
    assert hidden("Bearer abcdef; git https://me:token@host/x.git", environment) == (
        "Bearer ***; git https://host/x.git"
    )


def test_a_text_without_credentials_is_unchanged() -> None:
    text = "run sqlite:////data/a@b.db at http://host:5000/#/experiments/1?x=1, mail a@b.c"
    assert hidden(text, {"MLFLOW_TRACKING_URI": "postgresql://postgres@host/mlflow"}) == text


def test_the_name_of_a_databases_user_is_no_secret() -> None:
    assert credentials("postgresql://postgres@host/db") == set()
