"""JSON files that notice damage: a body with its own checksum, in one exact spelling.

Knows nothing of what is in the body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECKSUM = "sha256"


def encode_checked(body: Mapping[str, object]) -> bytes:
    """The body as indented JSON, with the SHA-256 of what it is without it as the last entry."""
    checksum = hashlib.sha256(_spell(body)).hexdigest()
    return _spell({**body, CHECKSUM: checksum})


def decode_checked(data: bytes) -> dict[str, Any]:
    """The body; raises ValueError unless the bytes are exactly those that encode_checked made."""
    body = json.loads(data)
    if not isinstance(body, dict) or body.pop(CHECKSUM, None) is None:
        raise ValueError("it has no checksum")
    # not the checksum alone: that one overlooks a blank that became another
    if encode_checked(body) != data:
        raise ValueError("its checksum does not fit")
    return body


def _spell(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, indent=1).encode()
