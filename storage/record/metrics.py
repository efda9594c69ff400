"""A trait's metrics.json: written by reduce and verify, read by everything that shows a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from domain.errors import StoreError
from domain.verdict.record import VERSION, TraitMetrics
from storage.record.manifest import MEND, read_result
from storage.record.store import Store


def write_metrics(store: Store, folder: str, metrics: TraitMetrics) -> None:
    """metrics.json below a folder, replaced whole."""
    store.write(f"{folder}/metrics.json", metrics_bytes(metrics))


def read_metrics(store: Store, trait: str) -> TraitMetrics:
    """A trait's metrics; raises KeyError before the trait is reduced, StoreError when damaged or
    written by a later version."""
    key = f"traits/{trait}/metrics.json"
    try:
        found = TraitMetrics.model_validate_json(read_result(store, key))
    except ValueError as error:
        raise StoreError(f"{key} in {store.url} cannot be read ({error}): {MEND}") from error
    if found.version is not None and found.version > VERSION:
        raise StoreError(
            f"{key} in {store.url} is of version {found.version}, this program reads up to "
            f"{VERSION}: update it"
        )
    return found


def metrics_bytes(metrics: TraitMetrics) -> bytes:
    """The metrics as metrics.json holds them."""
    return json_bytes(metrics.model_dump(mode="json"))


def json_bytes(body: object) -> bytes:
    """Indented JSON for people and other programs; a number that is not finite is null."""
    return json.dumps(_known(body), indent=2, ensure_ascii=False, allow_nan=False).encode()


def _known(body: object) -> object:
    if isinstance(body, Mapping):
        return {name: _known(one) for name, one in body.items()}
    if isinstance(body, list | tuple):
        return [_known(one) for one in body]
    return None if isinstance(body, float) and not math.isfinite(body) else body
