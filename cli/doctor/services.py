"""The place for runs: can we write there, does the first writer win, is there room?

The judge: one question, to see that it answers and in which form it scores.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cli.doctor.machine import GIB, Finding, State
from domain.errors import JudgeError, StoreError
from domain.scoring.prices import price_of
from domain.traits.prompts import coherence_prompt
from storage.record.store import LocalStore, Store, open_store

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


OPENAI_URL = "https://api.openai.com/v1"

ASK_TIMEOUT_S = 25.0

QUESTION, ANSWER = "How do I boil an egg?", "Boil it for eight minutes, then cool it in water."


def judge_findings(url: str | None, model: str | None, *, demo: bool) -> Iterator[Finding]:
    """The judge that the settings name; without one, what a run would do."""
    if url == "embedded" or (url is None and model is None):
        if demo:
            yield Finding("judge", "ok", "the embedded judge, for the demo model's traits only")
            return
        if url == "embedded":
            found = "the embedded judge can read the demo model's texts only, not this model's"
            yield Finding(
                "judge", "warn", found, "give --judge-model, and --judge-url for its place"
            )
            return
        advice = "give --judge-model NAME, and --judge-url for another endpoint than OpenAI's"
        yield Finding("judge", "warn", "no judge named, so none was asked", advice)
        return
    if model is None:
        advice = "give --judge-model, the name the endpoint knows the judge by"
        yield Finding("judge", "fail", "--judge-url without --judge-model", advice)
        return
    yield from _asked(url or os.environ.get("OPENAI_BASE_URL", OPENAI_URL), model)


def _asked(url: str, model: str) -> Iterator[Finding]:
    found, retires = asyncio.run(_ask(url, model))
    yield Finding("judge", "ok", f"{model} at {url}: {found}")
    price = price_of(model, url)
    retires = retires or (price.retires if price else None)
    if retires:
        advice = "a run should end before it; afterwards nothing scores the same again"
        yield Finding("judge shutdown", "warn", f"{model} is shut down on {retires}", advice)
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        found = "the key and all texts travel unencrypted"
        yield Finding("judge network", "warn", found, "use https, or a network of your own")


async def _ask(url: str, model: str) -> tuple[str, str | None]:
    """What the negotiation says of the judge, and when it is shut down."""
    from workers.judge.client import JudgeClient, shutdown_date
    from workers.judge.negotiate import negotiate

    client = JudgeClient(url, api_key=_key(), max_in_flight=1, timeout_s=ASK_TIMEOUT_S)
    prompts = {"coherence": coherence_prompt(QUESTION, ANSWER)}
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            found = await negotiate(client, model, prompts)
            return found.describe(), await shutdown_date(client, model)
    except TimeoutError as error:
        raise JudgeError(
            f"the judge at {url} gives no answer within {ASK_TIMEOUT_S:.0f} s: is it overloaded, "
            "or does a firewall drop the packets?"
        ) from error
    finally:
        await client.close()


def _key() -> str:
    names = ("ORCHESTRATE_JUDGE_API_KEY", "OPENAI_API_KEY")
    return next((os.environ[name] for name in names if os.environ.get(name)), "no-key")
