"""A judge process for tests: asks prompts through the shared limiter and prints what came of it.

`python -m tests.judge_process '{"broker": ..., "url": ..., "run": ..., "text": ..., "n": ...}'`
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import redis.asyncio

from domain.scoring.prices import Price
from storage.broker.embedded_redis import die_with_parent
from storage.broker.judge_limits import LimiterKeys, SharedLimiter
from storage.broker.reply_cache import ReplyCache
from workers.judge.client import JudgeClient
from workers.judge.judge import Judge, JudgedPrompts, Slots
from workers.judge.profile import JudgeProfile


async def ask(settings: dict[str, Any]) -> JudgedPrompts:
    """Ask all prompts; the parent has opened the run's budget."""
    client = JudgeClient(settings["url"], api_key="test-key-1234", max_in_flight=64, timeout_s=10)
    connection = redis.asyncio.Redis.from_url(settings["broker"])
    keys = LimiterKeys.of(settings["run"], url=settings["url"], model="test")

    async def no_budget() -> None:
        raise AssertionError("the parent opens the budget")

    limiter = SharedLimiter(connection, keys, is_up=client.is_up, open_budget=no_budget)
    price = Price.model_validate(settings["price"]) if "price" in settings else None
    judge = Judge(
        client,
        "test",
        profile=JudgeProfile(),
        slots=Slots(settings.get("in_flight", 64)),
        price=price,
        limiter=limiter,
        cache=ReplyCache(connection, judge_key="a-key-of-the-judge"),
    )
    found = await judge.scorings(
        [f"{'x' * 400}{settings['text']}{number}" for number in range(settings["n"])]
    )
    await client.close()
    await connection.aclose()
    return found


def start(settings: dict[str, Any]) -> subprocess.Popen[str]:
    """A process of its own; its last line is a JSON report."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.judge_process", json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )


def report(process: subprocess.Popen[str], timeout_s: float = 120) -> dict[str, Any]:
    """What a finished process says."""
    said, _ = process.communicate(timeout=timeout_s)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def in_processes(each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What processes of their own report."""
    return [report(process) for process in [start(settings) for settings in each]]


def in_this_process(each: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with one limiter, client and connection each, but without the start of processes."""

    async def ask_all() -> list[JudgedPrompts]:
        return await asyncio.gather(*(ask(settings) for settings in each))

    return [said_by(found) for found in asyncio.run(ask_all())]


def main() -> None:
    """Ask and print."""
    sys.stdout.write(json.dumps(said_by(asyncio.run(ask(json.loads(sys.argv[1]))))) + "\n")


def said_by(found: JudgedPrompts) -> dict[str, Any]:
    """The report of an asking."""
    return {
        "n_scored": sum(hasattr(v, "value") for v in found.scorings),
        "n_none": sum(v is None for v in found.scorings),
        "stopped": type(found.stopped).__name__ if found.stopped else None,
        "attempts": sum(e.attempts for e in found.evidence),
        "usd": sum(e.usd or 0.0 for e in found.evidence),
        "scores": [getattr(v, "value", None) for v in found.scorings],
    }


if __name__ == "__main__":
    main()
