"""A trait's metrics.json: written by reduce and verify, read by everything that shows a verdict.

The seal of a folder of results: a checksum of every file that people read, in one small file.

Results are replaced when a trait is assembled again, so their checksums cannot be in their names
as those of the artifacts are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from domain.errors import StoreError
from storage.record.artifacts import decode_checked, encode_checked
from storage.record.store import Store


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


NAME = "seal.json"

MEND = "run the same extract command again to assemble it anew"

_FILES = ("responses.parquet", "evaluation.parquet", "steering.parquet", "metrics.json")

_FOLDERS = ("responses", "vectors")


def seal(store: Store, folder: str) -> None:
    """Note the checksums of the results below a folder, once they are all written."""
    files = {key.removeprefix(f"{folder}/"): _sha256(store, key) for key in _keys(store, folder)}
    store.write(f"{folder}/{NAME}", encode_checked({"files": files}))


@contextlib.contextmanager
def sealing(store: Store, folder: str) -> Iterator[None]:
    """Write or replace results below a folder: they have no seal until all are there."""
    store.delete(f"{folder}/{NAME}")
    yield
    seal(store, folder)


def broken(store: Store, folder: str) -> list[str]:
    """Keys of results that are not what was written, or gone; the seal itself when it is.

    Empty for a folder without a seal: its results are not finished.
    """
    try:
        data = store.read(f"{folder}/{NAME}")
    except KeyError:
        return []
    try:
        files = decode_checked(data)["files"]
        keys = {f"{folder}/{name}": sha for name, sha in files.items()}
        return [key for key, sha in keys.items() if _sha256(store, key) != sha]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{folder}/{NAME}"]


def read_sealed(store: Store, key: str) -> bytes:
    """A result's bytes; raises KeyError when it is not there, StoreError when its folder's seal
    disagrees. A result without a seal is taken as it is.
    """
    data = store.read(key)
    while not _agrees(store, key, data):
        # replaced and sealed between our two looks: then the next look finds both
        again = store.read(key)
        if again == data:
            raise StoreError(f"{key} in {store.url} is not what was written: {MEND}")
        data = again
    return data


def _agrees(store: Store, key: str, data: bytes) -> bool:
    folder, _, name = key.rpartition("/")
    try:
        sha = decode_checked(store.read(f"{folder}/{NAME}"))["files"].get(name)
    except (KeyError, ValueError, TypeError, AttributeError):
        return True
    return sha is None or hashlib.sha256(data).hexdigest() == sha


def _keys(store: Store, folder: str) -> list[str]:
    found = [f"{folder}/{name}" for name in _FILES if store.exists(f"{folder}/{name}")]
    for name in _FOLDERS:
        found += sorted(store.list(f"{folder}/{name}"))
    return found


def _sha256(store: Store, key: str) -> str:
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except KeyError:
        return ""
