"""The place for runs: can we write there, does the first writer win, is there room?

Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cli.doctor_finding import GIB, Finding, State
from orchestrator.errors import StoreError
from storage.store import LocalStore, Store, open_store

# A trait of 2000 responses on a model of a few billion parameters leaves about this much.
BYTES_A_TRAIT = GIB


def storage_findings(runs_dir: str, *, is_shared: bool) -> Iterator[Finding]:
    """Writes two files under a name of their own and removes them again; makes no folder for runs.

    A fleet's folder has to be there: an empty one in its place would hide that it is not mounted.
    """
    store = open_store(runs_dir)
    if is_missing(store):
        yield _missing(runs_dir, store.url, is_shared=is_shared)
        return
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


def is_missing(store: Store) -> bool:
    """Whether the place for runs is a folder that is not there."""
    return isinstance(store, LocalStore) and not store.root.exists()


def _missing(given: str, url: str, *, is_shared: bool) -> Finding:
    if not Path(given).is_absolute() and not is_shared:
        return Finding("storage", "ok", f"{url} is not there yet, the first run makes it")
    advice = f"mount it if it is a shared folder, or make it: mkdir -p {url}"
    # below the working folder no share was forgotten
    harmless = not Path(given).is_absolute() or (not is_shared and Path(url).parent.is_dir())
    state: State = "warn" if harmless else "fail"
    return Finding("storage", state, f"there is no folder {url} on this machine", advice)


@contextlib.contextmanager
def token_file(store: Store) -> Iterator[tuple[str, str]]:
    """A file for workers to look at, and write beside, while the context is open.

    It lies in a folder of its own, as a run's files do. Yields its key and token.
    """
    folder, token = f".doctor-{secrets.token_hex(8)}", secrets.token_hex(16)
    try:
        store.write(f"{folder}/token", token.encode())
        yield f"{folder}/token", token
    finally:
        with contextlib.suppress(OSError, StoreError):
            for key in store.list(folder):
                store.delete(key)
            if isinstance(store, LocalStore):
                (store.root / folder).rmdir()


def _room(root: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(root)
    found = f"{usage.free / GIB:.0f} GiB free"
    if usage.free < 2 * BYTES_A_TRAIT:
        advice = "free some: a large model's trait takes up to a gigabyte"
        yield Finding("storage room", "warn", found, advice)
    else:
        yield Finding("storage room", "ok", found)
