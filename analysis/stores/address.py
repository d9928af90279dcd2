"""Addresses of tracking stores and databases."""

import re


def redacted(address: str) -> str:
    """An address without user name and password, to be printed or stored."""
    return re.sub(r"//[^/@]*@", "//", address)
