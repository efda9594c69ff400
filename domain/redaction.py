"""What is secret leaves a text before it is printed or stored."""

from __future__ import annotations

import re

_USER = re.compile(r"((?:rediss?|https?|s?ftp|ssh|smb)://)\S*@")


def without_password(text: str) -> str:
    """A URL as it may be printed, or a text with one in it: user and password are left out."""
    # up to the last @: a password may hold one too; in the path of s3:// and such it is a letter
    return _USER.sub(r"\1", text)
