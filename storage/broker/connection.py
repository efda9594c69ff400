"""Connections to the broker's Redis with the waits that long work needs, and what it says."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis._parsers import BaseParser

from domain.errors import BrokerError
from domain.redaction import without_password

Client = redis.Redis

HEALING_ANSWERS = frozenset(
    {
        *("OOM", "MISCONF", "BUSY", "NOREPLICAS"),
        # a failover, or a cluster that looks for its master
        *("READONLY", "UNBLOCKED", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"),
    }
)
"""What a server begins an answer with when it cannot serve now and may soon: it is full, cannot
save, runs a long script, or is no master. redis-py itself takes a server that loads its data, has
too many clients or does not know our password for one that is away."""


class CannotServeError(redis.ConnectionError):
    """The server is there and cannot serve now; in its own words."""


BROKER_AWAY = (redis.ConnectionError, redis.TimeoutError, BrokerError)
"""What is raised while the broker, or the way to it, is down or cannot serve; it may come back."""

# Before Redis 7 what a script was answered stands inside the script's own error.
_OF_A_SCRIPT = re.compile(r"@user_script: ?\d+: -([A-Z]+) .*", re.DOTALL)
_error_of = BaseParser.parse_error


def _parse_error(response: str) -> Exception:
    """The error that an answer is, for all of redis-py, kombu and Celery in this process: who
    waits for a server that went away waits for one that cannot serve."""
    inside = _OF_A_SCRIPT.search(response)
    code = inside.group(1) if inside else response.partition(" ")[0]
    if code not in HEALING_ANSWERS:
        error: Exception = _error_of(response)  # type: ignore[no-untyped-call]
        return error
    return CannotServeError(inside.group().partition("-")[2] if inside else response)


BaseParser.parse_error = staticmethod(_parse_error)  # type: ignore[method-assign]

TRYING = "Waits for the broker, trying again"
"""What whoever watches is told meanwhile."""


def connect(url: str) -> redis.Redis:
    """A checked connection; raises BrokerError in words when nobody answers or we are refused."""
    try:
        client = redis.Redis.from_url(
            url, socket_connect_timeout=5, socket_timeout=10, health_check_interval=30
        )
        client.ping()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise BrokerError(
            f"the broker at {without_password(url)} refuses our user or password",
            advice="check ORCHESTRATE_BROKER_URL",
        ) from error
    except CannotServeError as error:
        raise BrokerError(f"the broker at {without_password(url)} cannot serve: {error}") from error
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(
            f"no broker answers at {without_password(url)} ({error})",
            advice="start Redis there, or mend ORCHESTRATE_BROKER_URL or --broker-url",
        ) from error
    return client


def require_writes(client: redis.Redis) -> None:
    """Raises CannotServeError when the server answers and takes nothing, as one that is full."""
    client.set("orchestrate:takes-writes", "1", ex=60)


def refusal_of_writes(client: redis.Redis) -> str:
    """Why the server takes nothing now, in its own words; empty when it does."""
    try:
        require_writes(client)
    except CannotServeError as error:
        return str(error)
    return ""


def server_time(client: redis.Redis) -> float:
    """Seconds since 1970 by the server's clock, the one that all machines share."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def tls_options(url: str) -> dict[str, Any] | None:
    """What Celery needs for a rediss:// URL; None for a plain one.

    Certificates are verified unless the URL itself says otherwise; its ssl_... parts, such as
    `?ssl_ca_certs=/etc/orchestrate/ca.pem`, are read by redis and kombu alike.
    """
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss://") else None


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


# How often its time is asked for: the quickest answer waited least for a busy machine.
ASKED = 3


def broker_facts(client: redis.Redis) -> BrokerFacts:
    """Ask an open connection; raises BrokerError when it does not answer like a Redis server."""
    try:
        info = cast(Mapping[str, Any], client.info())
        round_trip_s, skew_s = min(_asked_for_its_time(client) for _ in range(ASKED))
        append_only = bool(int(info.get("aof_enabled", 0)))
        return BrokerFacts(
            version=str(info.get("redis_version", "unknown")),
            eviction=str(info.get("maxmemory_policy", "unknown")),
            max_bytes=int(info.get("maxmemory", 0)),
            used_bytes=int(info.get("used_memory", 0)),
            saves_to_disk=append_only or _has_save_points(client),
            last_save_ok=info.get("rdb_last_bgsave_status", "ok") == "ok"
            and info.get("aof_last_write_status", "ok") == "ok",
            skew_s=skew_s,
            round_trip_s=round_trip_s,
        )
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(
            f"the broker stopped answering while it was checked ({error})",
            advice="look at its log",
        ) from error


def _asked_for_its_time(client: redis.Redis) -> tuple[float, float]:
    """(seconds of one question, our clock minus its clock)."""
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    # the broker read its clock somewhere between the two readings of ours
    return after - before, (before + after) / 2 - (seconds + micros / 1e6)


def _has_save_points(client: redis.Redis) -> bool:
    try:
        found = cast(Mapping[str, str], client.config_get("save"))
    except redis.ResponseError:
        # hosted brokers refuse CONFIG and keep their data by other means
        return True
    return bool(found.get("save"))
