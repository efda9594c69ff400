"""The manifest of a trait's results: a checksum of every file that people read, in one small file.

Results are replaced when a trait is assembled again, so their checksums cannot be in their names
as those of the artifacts are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from domain.errors import StoreError
from storage.record.artifacts import checksum, decode_checked, encode_checked
from storage.record.store import Store

# the name that it had when the first runs were made
NAME = "seal.json"

MEND = "run the same extract command again to assemble it anew"

_FILES = ("responses.parquet", "evaluation.parquet", "steering.parquet", "metrics.json")

_FOLDERS = ("responses", "vectors")


def write_manifest(store: Store, folder: str) -> None:
    """Note the checksums of the results below a folder, once they are all written."""
    files = {key.removeprefix(f"{folder}/"): _sha256(store, key) for key in _keys(store, folder)}
    store.write(f"{folder}/{NAME}", encode_checked({"files": files}))


@contextlib.contextmanager
def writing_results(store: Store, folder: str) -> Iterator[None]:
    """Write or replace results below a folder: they have no manifest until all are there."""
    store.delete(f"{folder}/{NAME}")
    yield
    write_manifest(store, folder)


def damaged_results(store: Store, folder: str) -> list[str]:
    """Keys of results that are not what was written, or gone; the manifest itself when it is.

    Empty for a folder without a manifest: its results are not finished.
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


def read_result(store: Store, key: str) -> bytes:
    """A result's bytes; raises KeyError when it is not there, StoreError when its folder's manifest
    disagrees. A result without a manifest is taken as it is.
    """
    data = store.read(key)
    while not _agrees(store, key, data):
        # replaced and listed between our two looks: then the next look finds both
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
    return sha is None or checksum(data) == sha


def _keys(store: Store, folder: str) -> list[str]:
    found = [f"{folder}/{name}" for name in _FILES if store.exists(f"{folder}/{name}")]
    for name in _FOLDERS:
        found += sorted(store.list(f"{folder}/{name}"))
    return found


def _sha256(store: Store, key: str) -> str:
    try:
        return checksum(store.read(key))
    except KeyError:
        return ""
