"""Addresses of tracking stores and databases, and the credentials in them, which never leave."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from urllib.parse import quote, quote_plus, unquote, unquote_plus

# Variables that hold an address with credentials, and those that hold a secret itself.
ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "ASIB_STUDY_STORAGE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
)
SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
)
HIDDEN = "***"
_LEAST = 4  # characters of a secret that is looked for in texts: a shorter one is in every word
# Parameters of an address whose values are no secrets; of all others the value is hidden.
_PLAIN = (
    "sslmode|sslrootcert|host|hostaddr|port|dbname|charset|connect_timeout|application_name|mode"
)
_PARAMETER = re.compile(rf"([?&;](?!(?:{_PLAIN})=)[^=&;#\s]+=)([^&;#\s'\"]+)")
# What is before the last @, also with a slash in the password; a path (a third slash) has no user.
_USER = re.compile(r"(?<=://)(?!/)(?:[^\s?#'\"<>]*:[^\s?#'\"<>]*@|[^\s/?#'\"<>]*@)")


def redacted(address: str) -> str:
    """An address without user name, password and tokens, to be printed or stored."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub("", address))


def credentials(address: str) -> set[str]:
    """The password and tokens of an address; a name alone is a token for a server, not for a
    database."""
    found = {value for _, value in _PARAMETER.findall(address)}
    for user in _USER.findall(address):
        name, colon, password = user[:-1].partition(":")
        found |= {user[:-1], password} if colon else set()
        found |= {name} if not colon and address.startswith("http") else set()
    return found


def hidden(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text without the credentials that the environment holds, in whatever form they are there,
    and without those of any address in it."""
    for secret in given_credentials(environment):
        text = text.replace(secret, HIDDEN)
    return _USER.sub("", text)


def given_credentials(environment: Mapping[str, str] | None = None) -> list[str]:
    """The credentials that the environment holds, in every form that they are written in."""
    found = os.environ if environment is None else environment
    names = (*ADDRESSES, *SECRETS)
    return _forms(tuple((name, found[name]) for name in names if name in found))


@cache
def _forms(values: tuple[tuple[str, str], ...]) -> list[str]:
    """The credentials of these variables as they may be written, the longest first: a long one can
    contain a short one."""
    known: set[str] = set()
    for name, value in values:
        known |= {value} if name in SECRETS else credentials(value)
    meant = {way(one) for one in known for way in (str, unquote, unquote_plus)}
    forms = {way(one) for one in meant for way in (str, quote, _quoted, quote_plus)}
    return sorted((form for form in forms if len(form) >= _LEAST), key=len, reverse=True)


def _quoted(text: str) -> str:
    return quote(text, safe="")
