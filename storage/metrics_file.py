"""A trait's metrics.json: written by reduce and verify, read by everything that shows a verdict."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import StoreError
from storage.seal import MEND, read_sealed
from storage.store import Store


def write_metrics(store: Store, folder: str, metrics: dict[str, Any]) -> None:
    """metrics.json below a folder, replaced whole."""
    store.write(f"{folder}/metrics.json", json_bytes(metrics))


def read_metrics(store: Store, trait: str) -> dict[str, Any]:
    """A trait's metrics; raises KeyError before the trait is reduced, StoreError when damaged."""
    key = f"traits/{trait}/metrics.json"
    try:
        found: dict[str, Any] = json.loads(read_sealed(store, key))
    except ValueError as error:
        raise StoreError(f"{key} in {store.url} cannot be read ({error}): {MEND}") from error
    return found


def json_bytes(body: object) -> bytes:
    """Indented JSON; NaN is refused, since a number nobody has is null."""
    return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False).encode()
