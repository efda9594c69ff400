"""Protects the start of the private redis-server: a port that another program took meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from domain.errors import BrokerError
from storage.broker import embedded_redis as subject
from storage.broker.embedded_redis import embedded_redis


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_that_was_taken_after_it_was_chosen_costs_another_try(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = subject._free_port
    ports = iter([taken])
    monkeypatch.setattr(subject, "_free_port", lambda: next(ports, None) or free())

    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        assert client.ping()
        assert f":{taken}/" not in url


def test_a_server_that_never_starts_is_an_error_that_leaves_nothing(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_free_port", lambda: taken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(BrokerError), embedded_redis():
        pass

    assert list(tmp_path.iterdir()) == []
