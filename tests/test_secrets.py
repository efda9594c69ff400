"""Protects secrets and warnings at the command: what is recorded, printed or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.broker.embedded_redis import embedded_redis
from tests.fleet import run_command

BASE = ["extract", "--traits", "refusal", "--run", "one", "--detach"]
UNREACHABLE = "redis://me:hidden@127.0.0.1:1/0"


def test_a_brokers_password_is_neither_recorded_nor_printed(tmp_path: Path) -> None:
    with embedded_redis() as url:
        ended = run_command(*BASE, "--runs-dir", str(tmp_path), "--broker-url", url)
    away = run_command(*BASE, "--runs-dir", str(tmp_path), "--broker-url", UNREACHABLE)

    password, place = url.removeprefix("redis://:").split("@")
    assert (ended.returncode, away.returncode) == (0, 5)
    assert "redis://127.0.0.1:1/0" in away.stderr
    recorded = (tmp_path / "one" / "run.json").read_text()
    assert f"redis://{place}" in recorded
    assert password not in recorded + ended.stdout + ended.stderr
    assert "hidden" not in away.stdout + away.stderr


@pytest.mark.parametrize(
    "place",
    [
        ["--judge-model", "m", "--judge-url", "https://me:hidden@host/v1"],
        ["--judge-model", "m", "--judge-url", "https://host/v1?api_key=hidden"],
        ["--runs-dir", "sftp://me:hidden@host/runs"],
        ["--runs-dir", "sftp://host/runs?password=hidden"],
    ],
    ids=["judge", "judge's query", "runs", "runs' query"],
)
def test_a_url_with_a_password_is_refused_where_it_would_be_recorded(
    tmp_path: Path, place: list[str]
) -> None:
    ended = run_command(*BASE, "--runs-dir", str(tmp_path), *place)

    assert ended.returncode in (1, 2)
    assert "password" in ended.stderr
    assert "hidden" not in ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_who_trusts_a_models_code_is_told_what_that_means(tmp_path: Path) -> None:
    with embedded_redis() as url:
        sent = [*BASE, "--runs-dir", str(tmp_path), "--broker-url", url]
        ended = run_command(*sent, "--trust-remote-code")

    assert "Warning: --trust-remote-code" in ended.stdout + ended.stderr
