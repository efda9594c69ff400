"""What a broker says about itself: version, memory policy, persistence, clock.

Reads only. Knows nothing of which answers are good.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from orchestrator.errors import BrokerError


@dataclass(frozen=True)
class BrokerFacts:
    """A broker's own words; `skew_s` is our clock minus its clock, `round_trip_s` one question."""

    version: str
    eviction: str
    max_bytes: int
    used_bytes: int
    saves_to_disk: bool
    last_save_ok: bool
    skew_s: float
    round_trip_s: float


def broker_facts(client: redis.Redis) -> BrokerFacts:
    """Ask an open connection; raises BrokerError when it does not answer like a Redis server."""
    try:
        info = cast(Mapping[str, Any], client.info())
        before = time.time()
        seconds, micros = client.time()
        after = time.time()
        append_only = bool(int(info.get("aof_enabled", 0)))
        return BrokerFacts(
            version=str(info.get("redis_version", "unknown")),
            eviction=str(info.get("maxmemory_policy", "unknown")),
            max_bytes=int(info.get("maxmemory", 0)),
            used_bytes=int(info.get("used_memory", 0)),
            saves_to_disk=append_only or _has_save_points(client),
            last_save_ok=info.get("rdb_last_bgsave_status", "ok") == "ok"
            and info.get("aof_last_write_status", "ok") == "ok",
            # the broker read its clock somewhere between the two readings of ours
            skew_s=(before + after) / 2 - (seconds + micros / 1e6),
            round_trip_s=after - before,
        )
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(
            f"the broker stopped answering while it was checked ({error}): look at its log"
        ) from error


def _has_save_points(client: redis.Redis) -> bool:
    try:
        found = cast(Mapping[str, str], client.config_get("save"))
    except redis.ResponseError:
        # hosted brokers refuse CONFIG and keep their data by other means
        return True
    return bool(found.get("save"))
