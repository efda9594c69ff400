"""What a run needs beside this machine: a broker and its workers, a place for runs, a judge."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.doctor.machine import GIB, Checked, State
from cli.options.judge_url import default_judge_url
from domain.errors import BrokerError, JudgeError, StoreError
from domain.fleet.heartbeats import QUEUES
from domain.plan.spec import NO_JUDGE, WIRE_VERSION
from domain.redaction import without_password
from domain.scoring.prices import price_of
from domain.traits.judge_prompt import EASY, coherence_prompt
from orchestrator.runs import runs_place
from storage.broker.connection import BrokerFacts, broker_facts, connect
from storage.broker.fleet import read_listed_runs, read_queues
from storage.record.store import LocalStore, Store, open_store
from tasks.fleet.app import make_app
from tasks.fleet.remote_control import ask_workers, package_versions

LOOPBACK = ("127.0.0.1", "localhost", "::1", None)

# The oldest server that the tests run on.
OLDEST_REDIS = (6, 2)

# Leases are given and checked by clock, and last half a minute.
MAX_SKEW_S, FATAL_SKEW_S = 2.0, 10.0

SLOW_ROUND_TRIP_S = 0.1

# Workers answer from their main loop, at once unless the machine is overloaded.
WORKERS_WAIT_S = 2.0

# Different versions of these may give different texts or vectors.
MATTER_TO_RESULTS = ("trait-vector-orchestrator", "torch", "transformers", "accelerate")

# A trait of 2000 responses on a model of a few billion parameters leaves about this much.
BYTES_A_TRAIT = GIB

ASK_TIMEOUT_S = 25.0
Answers = Mapping[str, Mapping[str, Any]]
"""What each worker that answered said, by its name."""


def check_broker(url: str | None) -> Iterator[Checked]:
    """Reachable, guarded, and set up so that queued jobs survive."""
    if not url:
        found = "none set: `orchestrate extract` starts a private one for its own time"
        yield Checked("broker", "ok", found)
        return
    with connect(url) as client:
        facts = broker_facts(client)
    found = f"Redis {facts.version} at {without_password(url)}, {facts.round_trip_s * 1000:.0f} ms"
    number = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal())
    advice = ""
    if number < OLDEST_REDIS:
        advice = "the oldest we test is 6.2: update it"
    elif facts.round_trip_s > SLOW_ROUND_TRIP_S:
        advice = "far away: every job waits for several of these"
    yield Checked("broker", "warn" if advice else "ok", found, advice)
    parts = urlsplit(url)
    if not parts.password and parts.hostname not in LOOPBACK:
        found = "whoever reaches the broker can give the workers jobs"
        advice = "set requirepass in redis.conf and the password in ORCHESTRATE_BROKER_URL"
        yield Checked("broker password", "warn", found, advice)
    yield _memory(facts)
    yield _persistence(facts)
    yield _clock("clock", "this machine's clock", facts.skew_s)


def check_fleet(broker_url: str | None, runs_dir: str) -> Iterator[Checked]:
    """Asks all workers once: who are you, do you see the file that I just wrote, and can you write
    beside it?"""
    if not broker_url:
        return
    try:
        connect(broker_url).close()
    except BrokerError:
        # the broker's own line says so
        return
    app, store = make_app(broker_url), open_store(runs_dir)
    # where it is missing, the storage's own line says so
    has_place = not _is_missing(store)
    if has_place:
        with token_file(store) as (key, token):
            answers = ask_workers(app, wait_s=WORKERS_WAIT_S, store=store.url, key=key, token=token)
    else:
        answers = ask_workers(app, wait_s=WORKERS_WAIT_S)
    yield from check_queues(broker_url, answers)
    yield from check_workers(answers)
    if has_place:
        yield check_shared_storage(answers, store.url)


def check_queues(url: str, answers: Answers) -> Iterator[Checked]:
    """What waits, and who listens."""
    with connect(url) as client:
        lengths = Counter[str]()
        for one in read_queues(client, read_listed_runs(client), QUEUES):
            lengths[one.kind] += one.waiting
    for queue in QUEUES:
        n = sum(queue in answer.get("queues", ()) for answer in answers.values())
        listen = f"{n} worker{'' if n == 1 else 's'} listen{'s' if n == 1 else ''}"
        found = f"{listen}, {lengths[queue]} jobs wait"
        advice = "" if n else f"start one: orchestrate worker {queue}"
        yield Checked(f"queue {queue}", "ok" if n else "warn", found, advice)


def check_workers(answers: Answers) -> Iterator[Checked]:
    """Versions and clocks of the workers against ours and the broker's."""
    strangers = sorted(name for name, answer in answers.items() if "versions" not in answer)
    if strangers:
        found = f"{', '.join(strangers)} did not understand the question"
        advice = "update orchestrate there, then start those workers again"
        yield Checked("workers", "warn", found, advice)
    known = {name: a for name, a in answers.items() if "versions" in a}
    wrong = sorted(name for name, a in known.items() if a["wire"] != WIRE_VERSION)
    if wrong:
        found = f"{', '.join(wrong)} speak another wire version and will refuse our jobs"
        yield Checked("workers", "fail", found, "install one version of orchestrate everywhere")
    yield from _versions(known)
    skews = {answer["host"]: answer["skew_s"] for answer in known.values()}
    for host, skew in sorted(skews.items()):
        if abs(skew) >= MAX_SKEW_S:
            yield _clock("clock", f"the clock of {host}", skew)


def check_shared_storage(answers: Answers, store_url: str) -> Checked:
    """Whether the workers saw the file that we had just written, and could write beside it."""
    looked = {name: answer for name, answer in answers.items() if answer.get("sees")}
    blind = {name: answer["sees"] for name, answer in looked.items() if answer["sees"] != "yes"}
    if not looked:
        found = "no worker answered, so nobody could look from another machine"
        return Checked("shared storage", "warn", found, "run doctor again once workers are up")
    if blind:
        who = "; ".join(f"{name}: {why}" for name, why in sorted(blind.items()))
        advice = "mount the same folder at the same path everywhere, or use s3:// or gs://"
        if not all(answers[name].get("writes", True) for name in blind):
            advice = (
                "give it to a group that you and they are in: chgrp GROUP and chmod g+rwxs "
                f"{store_url}; runs that are there already: chmod -R g+rwX"
            )
        return Checked("shared storage", "fail", f"{store_url} is not theirs too: {who}", advice)
    whose = ", ".join(sorted({answer["host"] for answer in looked.values()}))
    return Checked("shared storage", "ok", f"seen and written by the workers of {whose}")


def _memory(facts: BrokerFacts) -> Checked:
    if facts.eviction != "noeviction":
        found = f"maxmemory-policy is {facts.eviction}: a full broker drops queued jobs unnoticed"
        # without a limit nothing is evicted yet, but one line of configuration makes it happen
        state: State = "fail" if facts.max_bytes else "warn"
        return Checked("broker memory", state, found, "set `maxmemory-policy noeviction`")
    share = facts.used_bytes / facts.max_bytes if facts.max_bytes else 0.0
    if share > 0.8:
        found = f"{share:.0%} of maxmemory is used"
        return Checked("broker memory", "warn", found, "raise maxmemory, or cancel old runs")
    return Checked("broker memory", "ok", "maxmemory-policy is noeviction")


def _persistence(facts: BrokerFacts) -> Checked:
    if not facts.last_save_ok:
        advice = "see the broker's log: its disk is full or not writable"
        return Checked("broker disk", "fail", "its last save to disk failed", advice)
    if not facts.saves_to_disk:
        found = "a restart of the broker forgets the queues (results are safe)"
        advice = "set `appendonly yes`; without it continue with `orchestrate resume RUN`"
        return Checked("broker disk", "warn", found, advice)
    return Checked("broker disk", "ok", "queues survive a restart of the broker")


def _clock(check: str, whose: str, skew_s: float) -> Checked:
    found = f"{whose} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the broker's"
    if abs(skew_s) < MAX_SKEW_S:
        return Checked(check, "ok", found)
    state: State = "fail" if abs(skew_s) >= FATAL_SKEW_S else "warn"
    return Checked(check, state, found, "turn on NTP (chrony, systemd-timesyncd) on both machines")


def _versions(known: Mapping[str, Mapping[str, Any]]) -> Iterator[Checked]:
    ours = package_versions()
    differing: dict[str, list[str]] = defaultdict(list)
    for name, answer in sorted(known.items()):
        for package in MATTER_TO_RESULTS:
            theirs = answer["versions"].get(package)
            # a judge's machine need not have torch
            if theirs and package in ours and theirs != ours[package]:
                differing[f"{package} {theirs} (here {ours[package]})"].append(name)
    for what, who in differing.items():
        advice = "use one version everywhere: `pip install -c constraints.txt`"
        yield Checked("versions", "warn", f"{what} on {', '.join(who)}", advice)
    if known and not differing:
        count = f"{len(known)} worker{'' if len(known) == 1 else 's'}"
        yield Checked("versions", "ok", f"the same here and on {count}")


def check_storage(runs_dir: str, *, is_shared: bool) -> Iterator[Checked]:
    """Writes two files under a name of their own and removes them again; makes no folder for runs.

    A fleet's folder has to be there: an empty one in its place would hide that it is not mounted.
    """
    store = runs_place(runs_dir)
    if _is_missing(store):
        yield _missing(runs_dir, store.url, is_shared=is_shared)
        return
    key = f".doctor-{secrets.token_hex(8)}"
    try:
        if not store.create(key, b"first"):
            raise StoreError(f"{key} exists already in {store.url}", advice="run doctor again")
        won_again, held = store.create(key, b"second"), store.read(key)
    finally:
        with contextlib.suppress(OSError, StoreError):
            store.delete(key)
    if won_again or held != b"first":
        advice = "use a file system with hard links (NFS has them) or s3://, gs://"
        found = f"{store.url} lets two workers write the same result"
        yield Checked("storage", "fail", found, advice)
        return
    yield Checked("storage", "ok", f"{store.url} can be written, and the first writer wins")
    if isinstance(store, LocalStore):
        free = shutil.disk_usage(store.root).free
        is_little = free < 2 * BYTES_A_TRAIT
        advice = "free some: a large model's trait takes up to a gigabyte" if is_little else ""
        state: State = "warn" if is_little else "ok"
        yield Checked("storage room", state, f"{free / GIB:.0f} GiB free", advice)


def _is_missing(store: Store) -> bool:
    """Whether the place for runs is a folder that is not there."""
    return isinstance(store, LocalStore) and not store.root.exists()


def _missing(given: str, url: str, *, is_shared: bool) -> Checked:
    if not Path(given).is_absolute() and not is_shared:
        return Checked("storage", "ok", f"{url} is not there yet, the first run makes it")
    advice = f"mount it if it is a shared folder, or make it: mkdir -p {url}"
    # below the working folder no share was forgotten
    harmless = not Path(given).is_absolute() or (not is_shared and Path(url).parent.is_dir())
    state: State = "warn" if harmless else "fail"
    return Checked("storage", state, f"there is no folder {url} on this machine", advice)


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


def check_judge(url: str | None, model: str | None, *, demo: bool) -> Iterator[Checked]:
    """The judge that the settings name; without one, what a run would do."""
    if demo and (url == "embedded" or (url is None and model is None)):
        yield Checked("judge", "ok", "the embedded judge, for the demo model's traits only")
    elif NO_JUDGE in (url, model):
        yield Checked("judge", "ok", "none: nothing is scored")
    elif url == "embedded":
        found = "the embedded judge can read the demo model's texts only, not this model's"
        yield Checked("judge", "warn", found, "give --judge-model, and --judge-url for its place")
    elif model is not None:
        yield from _asked(url or default_judge_url(), model)
    elif url is None:
        advice = "give --judge-model NAME, and --judge-url for another endpoint than OpenAI's"
        yield Checked("judge", "warn", "no judge named, so none was asked", advice)
    else:
        advice = "give --judge-model, the name the endpoint knows the judge by"
        yield Checked("judge", "fail", "--judge-url without --judge-model", advice)


def _asked(url: str, model: str) -> Iterator[Checked]:
    found, retires = asyncio.run(_ask(url, model))
    yield Checked("judge", "ok", f"{model} at {url}: {found}")
    price = price_of(model, url)
    retires = retires or (price.retires if price else None)
    if retires:
        advice = "a run should end before it; afterwards nothing scores the same again"
        yield Checked("judge shutdown", "warn", f"{model} is shut down on {retires}", advice)
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        found = "the key and all texts travel unencrypted"
        yield Checked("judge network", "warn", found, "use https, or a network of your own")


async def _ask(url: str, model: str) -> tuple[str, str | None]:
    """What the negotiation says of the judge, and when it is shut down."""
    from tasks.stages.judge_pool import open_judge
    from workers.judge.client import shutdown_date
    from workers.judge.negotiate import negotiate

    client = open_judge(url, max_in_flight=1, timeout_s=ASK_TIMEOUT_S)
    prompts = {"coherence": coherence_prompt(*EASY)}
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            found = await negotiate(client, model, prompts)
            return found.describe(), await shutdown_date(client, model)
    except TimeoutError as error:
        raise JudgeError(
            f"the judge at {url} gives no answer within {ASK_TIMEOUT_S:.0f} s",
            advice="is it overloaded, or does a firewall drop the packets?",
        ) from error
    finally:
        await client.close()
