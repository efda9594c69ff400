"""Connections to the broker's Redis, with the waits that long work needs."""

from __future__ import annotations

import re
import ssl
from typing import Any

import redis

from orchestrator.errors import BrokerError

Client = redis.Redis

_USER = re.compile(r"((?:rediss?|https?|s?ftp|ssh|smb)://)\S*@")

BROKER_AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, BrokerError)
"""What is raised while the broker or the way to it is down; it may come back."""

TRYING = "The broker does not answer, trying again"
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
            f"the broker at {without_password(url)} refuses our user or password: check "
            "ORCHESTRATE_BROKER_URL"
        ) from error
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(
            f"no broker answers at {without_password(url)} ({error}): start Redis there, or mend "
            "ORCHESTRATE_BROKER_URL or --broker-url"
        ) from error
    return client


def server_time(client: redis.Redis) -> float:
    """Seconds since 1970 by the server's clock, the one that all machines share."""
    seconds, micros = client.time()  # type: ignore[misc]
    return float(seconds) + float(micros) / 1e6


def without_password(text: str) -> str:
    """A URL as it may be printed, or a text with one in it: user and password are left out."""
    # up to the last @: a password may hold one too; in the path of s3:// and such it is a letter
    return _USER.sub(r"\1", text)


def tls_options(url: str) -> dict[str, Any] | None:
    """What Celery needs for a rediss:// URL; None for a plain one.

    Certificates are verified unless the URL itself says otherwise; its ssl_... parts, such as
    `?ssl_ca_certs=/etc/orchestrate/ca.pem`, are read by redis and kombu alike.
    """
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss://") else None
