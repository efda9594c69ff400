"""A trait's metrics.json: written by reduce and verify, read by everything that shows a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from domain.errors import StoreError
from storage.record.manifest import MEND, read_result
from storage.record.store import Store


def write_metrics(store: Store, folder: str, metrics: dict[str, Any]) -> None:
    """metrics.json below a folder, replaced whole."""
    store.write(f"{folder}/metrics.json", json_bytes(metrics))


def read_metrics(store: Store, trait: str) -> dict[str, Any]:
    """A trait's metrics; raises KeyError before the trait is reduced, StoreError when damaged."""
    key = f"traits/{trait}/metrics.json"
    try:
        found: dict[str, Any] = json.loads(read_result(store, key))
    except ValueError as error:
        raise StoreError(f"{key} in {store.url} cannot be read ({error}): {MEND}") from error
    return found


def json_bytes(body: object) -> bytes:
    """Indented JSON for people and other programs; a number that is not finite is null."""
    return json.dumps(_known(body), indent=2, ensure_ascii=False, allow_nan=False).encode()


def _known(body: object) -> object:
    if isinstance(body, Mapping):
        return {name: _known(one) for name, one in body.items()}
    if isinstance(body, list | tuple):
        return [_known(one) for one in body]
    return None if isinstance(body, float) and not math.isfinite(body) else body
