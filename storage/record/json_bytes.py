"""JSON as results and reports hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def json_bytes(body: object) -> bytes:
    """Indented JSON for people and other programs; a number that is not finite is null."""
    return json.dumps(_known(body), indent=2, ensure_ascii=False, allow_nan=False).encode()


def _known(body: object) -> object:
    if isinstance(body, Mapping):
        return {name: _known(one) for name, one in body.items()}
    if isinstance(body, list | tuple):
        return [_known(one) for one in body]
    return None if isinstance(body, float) and not math.isfinite(body) else body
