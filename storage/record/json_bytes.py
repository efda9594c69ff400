"""JSON as results, reports and records hold it; in records with a checksum of itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def json_bytes(body: object) -> bytes:
    """Indented JSON for people and other programs; a number that is not finite is null."""
    return json.dumps(_known(body), indent=2, ensure_ascii=False, allow_nan=False).encode()


def _known(body: object) -> object:
    if isinstance(body, Mapping):
        return {name: _known(one) for name, one in body.items()}
    if isinstance(body, list | tuple):
        return [_known(one) for one in body]
    return None if isinstance(body, float) and not math.isfinite(body) else body


CHECKSUM = "sha256"


def checksum(data: bytes) -> str:
    """Of a file, as records and manifests hold it."""
    return hashlib.sha256(data).hexdigest()


def encode_checked(body: Mapping[str, object]) -> bytes:
    """The body as indented JSON, with the SHA-256 of what it is without it as the last entry."""
    digest = checksum(json.dumps(body, indent=1).encode())
    return json.dumps({**body, CHECKSUM: digest}, indent=1).encode()


def decode_checked(data: bytes) -> dict[str, Any]:
    """The body; raises ValueError unless the bytes are exactly those that encode_checked made."""
    body = json.loads(data)
    if not isinstance(body, dict) or body.pop(CHECKSUM, None) is None:
        raise ValueError("it has no checksum")
    # not the checksum alone: that one overlooks a blank that became another
    if encode_checked(body) != data:
        raise ValueError("its checksum does not fit")
    return body
