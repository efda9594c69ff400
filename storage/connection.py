"""Connections to the broker's Redis, with the waits that long work needs."""

from __future__ import annotations

import redis

from orchestrator.errors import BrokerError


def connect(url: str) -> redis.Redis:
    """A checked connection; raises BrokerError in words when nobody answers or we are refused."""
    try:
        client = redis.Redis.from_url(
            url, socket_connect_timeout=5, socket_timeout=10, health_check_interval=30
        )
        client.ping()
    except redis.AuthenticationError as error:
        raise BrokerError(
            f"the broker at {without_password(url)} refuses our password: check "
            "ORCHESTRATE_BROKER_URL"
        ) from error
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(
            f"no broker answers at {without_password(url)} ({error}): start Redis there, or leave "
            "--broker-url out to have a private one started for the time of the command"
        ) from error
    return client


def without_password(url: str) -> str:
    """The URL as it may be printed."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
