"""The place for runs: can we write there, does the first writer win, is there room?

Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cli.doctor_finding import GIB, Finding
from orchestrator.errors import StoreError
from storage.store import LocalStore, Store, open_store

# A trait of 2000 responses on a model of a few billion parameters leaves about this much.
BYTES_A_TRAIT = GIB


def storage_findings(runs_dir: str) -> Iterator[Finding]:
    """Writes two files under a name of their own and removes them again."""
    store = open_store(runs_dir)
    key = f".doctor-{secrets.token_hex(8)}"
    try:
        if not store.create(key, b"first"):
            raise StoreError(f"{key} exists already in {store.url}: run doctor again")
        won_again, held = store.create(key, b"second"), store.read(key)
    finally:
        with contextlib.suppress(OSError, StoreError):
            store.delete(key)
    if won_again or held != b"first":
        advice = "use a file system with hard links (NFS has them) or s3://, gs://"
        found = f"{store.url} lets two workers write the same result"
        yield Finding("storage", "fail", found, advice)
        return
    yield Finding("storage", "ok", f"{store.url} can be written, and the first writer wins")
    if isinstance(store, LocalStore):
        yield from _room(store.root)


@contextlib.contextmanager
def token_file(runs_dir: str) -> Iterator[tuple[str, str, str]]:
    """A file for workers to look at while the context is open; yields store, key and token."""
    store: Store = open_store(runs_dir)
    key, token = f".doctor-{secrets.token_hex(8)}", secrets.token_hex(16)
    store.write(key, token.encode())
    try:
        yield store.url, key, token
    finally:
        with contextlib.suppress(OSError, StoreError):
            store.delete(key)


def _room(root: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(root)
    found = f"{usage.free / GIB:.0f} GiB free"
    if usage.free < 2 * BYTES_A_TRAIT:
        advice = "free some: a large model's trait takes up to a gigabyte"
        yield Finding("storage room", "warn", found, advice)
    else:
        yield Finding("storage room", "ok", found)
