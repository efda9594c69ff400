"""The broker as this machine reaches it, and the workers that answer through it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cli.doctor.machine import Finding, State
from domain.fleet.heartbeats import QUEUES
from domain.plan.spec import WIRE_VERSION
from domain.redaction import without_password
from storage.broker.connection import BrokerFacts, broker_facts, connect
from storage.broker.fleet import read_queues, read_runs
from tasks.fleet.about import versions

LOOPBACK = ("127.0.0.1", "localhost", "::1", None)

# The oldest server that the tests run on.
OLDEST_REDIS = (6, 2)

# Leases are given and checked by clock, and last half a minute.
MAX_SKEW_S, FATAL_SKEW_S = 2.0, 10.0

SLOW_ROUND_TRIP_S = 0.1

# Different versions of these may give different texts or vectors.
MATTER_TO_RESULTS = ("trait-vector-orchestrator", "torch", "transformers", "accelerate")


@dataclass(frozen=True)
class Fleet:
    """The workers that answered, by name."""

    workers: Mapping[str, Mapping[str, Any]]


def broker_findings(url: str) -> Iterator[Finding]:
    """Reachable, guarded, and set up so that queued jobs survive."""
    with connect(url) as client:
        facts = broker_facts(client)
    yield _reached(url, facts)
    parts = urlsplit(url)
    if not parts.password and parts.hostname not in LOOPBACK:
        yield Finding(
            "broker password",
            "warn",
            "whoever reaches the broker can give the workers jobs",
            "set requirepass in redis.conf and the password in ORCHESTRATE_BROKER_URL",
        )
    yield from _memory(facts)
    yield from _persistence(facts)
    yield _clock("clock", "this machine's clock", facts.skew_s)


def queue_findings(url: str, fleet: Fleet) -> Iterator[Finding]:
    """What waits, and who listens."""
    with connect(url) as client:
        lengths = Counter[str]()
        for one in read_queues(client, read_runs(client), QUEUES):
            lengths[one.kind] += one.waiting
    listeners: dict[str, int] = dict.fromkeys(QUEUES, 0)
    for answer in fleet.workers.values():
        # the queues of single runs come and go
        for queue in set(answer.get("queues", ())) & set(QUEUES):
            listeners[queue] += 1
    for queue, n in listeners.items():
        listen = f"{n} worker{'' if n == 1 else 's'} listen{'s' if n == 1 else ''}"
        found = f"{listen}, {lengths[queue]} jobs wait"
        advice = "" if n else f"start one: orchestrate worker {queue}"
        yield Finding(f"queue {queue}", "ok" if n else "warn", found, advice)


def worker_findings(fleet: Fleet) -> Iterator[Finding]:
    """Versions and clocks of the workers against ours and the broker's."""
    strangers = sorted(name for name, answer in fleet.workers.items() if "versions" not in answer)
    if strangers:
        yield Finding(
            "workers",
            "warn",
            f"{', '.join(strangers)} did not understand the question",
            "update orchestrate there, then start those workers again",
        )
    known = {name: a for name, a in fleet.workers.items() if "versions" in a}
    wrong = sorted(name for name, a in known.items() if a["wire"] != WIRE_VERSION)
    if wrong:
        found = f"{', '.join(wrong)} speak another wire version and will refuse our jobs"
        yield Finding("workers", "fail", found, "install one version of orchestrate everywhere")
    yield from _versions(known)
    skews = {answer["host"]: answer["skew_s"] for answer in known.values()}
    for host, skew in sorted(skews.items()):
        if abs(skew) >= MAX_SKEW_S:
            yield _clock("clock", f"the clock of {host}", skew)


def shared_storage(fleet: Fleet, store_url: str) -> Finding:
    """Whether the workers saw the file that we had just written, and could write beside it."""
    blind: dict[str, str] = {}
    hosts = set()
    for name, answer in fleet.workers.items():
        if answer.get("sees"):
            hosts.add(answer["host"])
            if answer["sees"] != "yes":
                blind[name] = answer["sees"]
    if not hosts:
        found = "no worker answered, so nobody could look from another machine"
        return Finding("shared storage", "warn", found, "run doctor again once workers are up")
    if blind:
        who = "; ".join(f"{name}: {why}" for name, why in sorted(blind.items()))
        advice = "mount the same folder at the same path everywhere, or use s3:// or gs://"
        if "cannot write" in who:
            advice = (
                "give it to a group that you and they are in: chgrp GROUP and chmod g+rwxs "
                f"{store_url}; runs that are there already: chmod -R g+rwX"
            )
        return Finding("shared storage", "fail", f"{store_url} is not theirs too: {who}", advice)
    whose = ", ".join(sorted(hosts))
    return Finding("shared storage", "ok", f"seen and written by the workers of {whose}")


def _reached(url: str, facts: BrokerFacts) -> Finding:
    found = f"Redis {facts.version} at {without_password(url)}, {facts.round_trip_s * 1000:.0f} ms"
    if _number(facts.version) < OLDEST_REDIS:
        advice = "the oldest we test is 6.2: update it"
        return Finding("broker", "warn", found, advice)
    if facts.round_trip_s > SLOW_ROUND_TRIP_S:
        return Finding("broker", "warn", found, "far away: every job waits for several of these")
    return Finding("broker", "ok", found)


def _memory(facts: BrokerFacts) -> Iterator[Finding]:
    share = facts.used_bytes / facts.max_bytes if facts.max_bytes else 0.0
    if facts.eviction != "noeviction":
        # without a limit nothing is evicted yet, but one line of configuration makes it happen
        yield Finding(
            "broker memory",
            "fail" if facts.max_bytes else "warn",
            f"maxmemory-policy is {facts.eviction}: a full broker drops queued jobs unnoticed",
            "set `maxmemory-policy noeviction`",
        )
    elif share > 0.8:
        found = f"{share:.0%} of maxmemory is used"
        yield Finding("broker memory", "warn", found, "raise maxmemory, or cancel old runs")
    else:
        yield Finding("broker memory", "ok", "maxmemory-policy is noeviction")


def _persistence(facts: BrokerFacts) -> Iterator[Finding]:
    if not facts.last_save_ok:
        advice = "see the broker's log: its disk is full or not writable"
        yield Finding("broker disk", "fail", "its last save to disk failed", advice)
    elif not facts.saves_to_disk:
        advice = "set `appendonly yes`; without it continue with `orchestrate resume RUN`"
        found = "a restart of the broker forgets the queues (results are safe)"
        yield Finding("broker disk", "warn", found, advice)
    else:
        yield Finding("broker disk", "ok", "queues survive a restart of the broker")


def _clock(check: str, whose: str, skew_s: float) -> Finding:
    found = f"{whose} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the broker's"
    if abs(skew_s) < MAX_SKEW_S:
        return Finding(check, "ok", found)
    state: State = "fail" if abs(skew_s) >= FATAL_SKEW_S else "warn"
    return Finding(check, state, found, "turn on NTP (chrony, systemd-timesyncd) on both machines")


def _versions(known: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    ours = versions()
    differing: dict[str, list[str]] = defaultdict(list)
    for name, answer in sorted(known.items()):
        for package in MATTER_TO_RESULTS:
            theirs = answer["versions"].get(package)
            # a judge's machine need not have torch
            if theirs and package in ours and theirs != ours[package]:
                differing[f"{package} {theirs} (here {ours[package]})"].append(name)
    for what, who in differing.items():
        advice = "use one version everywhere: `pip install -c constraints.txt`"
        yield Finding("versions", "warn", f"{what} on {', '.join(who)}", advice)
    if known and not differing:
        count = f"{len(known)} worker{'' if len(known) == 1 else 's'}"
        yield Finding("versions", "ok", f"the same here and on {count}")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
