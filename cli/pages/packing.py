"""The answers of a run inside its page: compressed, and cut where they would be too large whole."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

# Compressed, in base64 a third more: the page stays under 25 MB.
MOST_BYTES = 17_000_000

# The shortest that long responses are cut to for the page's sake.
LEAST_CHARACTERS = 400


def packed(tables: Sequence[Mapping[str, Any]]) -> str:
    """The tables as gzip of JSON in base64; responses are cut where they would be too large
    whole, the longest first."""
    limit = max((len(text) for one in tables for text in one["response"]), default=0)
    while True:
        body = json.dumps([_cut(one, limit) for one in tables], ensure_ascii=False, allow_nan=False)
        data = gzip.compress(body.encode(), 6, mtime=0)
        if len(data) <= MOST_BYTES or limit <= LEAST_CHARACTERS:
            return base64.b64encode(data).decode("ascii")
        limit = max(LEAST_CHARACTERS, int(limit * min(0.8, MOST_BYTES / len(data))))


def _cut(table: Mapping[str, Any], limit: int) -> dict[str, Any]:
    texts = table["response"]
    lengths = [len(text) if len(text) > limit else None for text in texts]
    return {**table, "response": [text[:limit] for text in texts], "cut": lengths}
