"""Judge throughput: scores a second and CPU a score, beside a bare loop of the openai client.

    python benchmarks/judge.py [--in-flight 32,128,512] [--seconds 8] [--rounds 3]

A server in a process of its own answers each call after 300 ms. The ideal is in flight / latency.
`bare` is `chat.completions.create` of one AsyncOpenAI in a loop and nothing else; `ours` is the
judge as a worker runs it: shared limiter and cache in Redis, evidence, score. Each measurement
runs in processes of its own, after one warm-up wave.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
LATENCY_S = 0.3
PROMPT_CHARACTERS = 2400


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--in-flight", default="32,128,512")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3, help="the ways take turns; medians count")
    parser.add_argument("--measure", choices=["bare", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--broker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure = bare if given.measure == "bare" else ours
        found = asyncio.run(measure(given, int(given.in_flight)))
        print(json.dumps(found))
        return
    table(given)


def table(given: argparse.Namespace) -> None:
    """All measurements, one after another."""
    from storage.broker.embedded_redis import embedded_redis

    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("judge_endpoint.py")), str(LATENCY_S)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start\n")
    columns = ["in flight", "ideal /s", "bare /s", "ours /s", "ours/ideal", "ours/bare"]
    columns += ["bare CPU ms", "ours CPU ms", "CPU ratio", "two processes /s", "two/one"]
    print(f"| {' | '.join(columns)} |\n|{'--:|' * len(columns)}")
    try:
        with embedded_redis() as broker:
            for n in map(int, given.in_flight.split(",")):
                rounds: dict[str, list[dict[str, float]]] = {"bare": [], "ours": [], "two": []}
                for _ in range(given.rounds):
                    for what in ("bare", "ours"):
                        rounds[what] += run(given, what, n, url=url, broker=broker)
                    pair = run(given, "ours", n, url=url, broker=broker, processes=2)
                    rounds["two"].append({"rate": sum(one["rate"] for one in pair)})
                b, o = medians(rounds["bare"]), medians(rounds["ours"])
                both, ideal = medians(rounds["two"])["rate"], n / LATENCY_S
                print(
                    f"| {n} | {ideal:.0f} | {b['rate']:.0f} | {o['rate']:.0f} | "
                    f"{o['rate'] / ideal:.0%} | {o['rate'] / b['rate']:.2f} | {b['cpu_ms']:.2f} | "
                    f"{o['cpu_ms']:.2f} | {o['cpu_ms'] / b['cpu_ms']:.2f} | {both:.0f} | "
                    f"{both / o['rate']:.2f} |",
                    flush=True,
                )
    finally:
        server.terminate()


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def run(
    given: argparse.Namespace, what: str, n: int, *, url: str, broker: str, processes: int = 1
) -> list[dict[str, float]]:
    """One measurement in processes of its own."""
    command = [sys.executable, __file__, "--measure", what, "--in-flight", str(n), "--url", url]
    command += ["--broker", broker, "--seconds", str(given.seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    return [json.loads(p.communicate()[0].splitlines()[-1]) for p in started]


async def bare(given: argparse.Namespace, n: int) -> dict[str, float]:
    """The client alone, n calls in flight."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=n)
    client = AsyncOpenAI(
        base_url=given.url,
        api_key="none",
        max_retries=0,
        timeout=60,
        http_client=DefaultAsyncHttpxClient(limits=limits, timeout=60),
    )
    prompt, until, done = "x" * PROMPT_CHARACTERS, 0.0, 0

    async def loop(once: bool) -> None:
        nonlocal done
        while once or time.perf_counter() < until:
            await client.chat.completions.create(
                model="test",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=1,
                temperature=0,
                seed=0,
                logprobs=True,
                top_logprobs=20,
            )
            done += 1
            if once:
                return

    await asyncio.gather(*(loop(True) for _ in range(n)))
    started, cpu, done = time.perf_counter(), time.process_time(), 0
    until = started + given.seconds
    await asyncio.gather(*(loop(False) for _ in range(n)))
    return figures(done, started, cpu)


async def ours(given: argparse.Namespace, n: int) -> dict[str, float]:
    """The judge as a worker runs it, n calls in flight."""
    import redis
    import redis.asyncio

    from storage.broker.judge_limits import LimiterKeys, SharedLimiter, put_judge_meter
    from storage.broker.reply_cache import ReplyCache
    from storage.record.spending import Terms
    from workers.judge.client import JudgeClient
    from workers.judge.judge import Judge, Slots
    from workers.judge.profile import JudgeProfile

    put_judge_meter(redis.Redis.from_url(given.broker), "bench", terms=Terms(), spent=0.0)
    client = JudgeClient(given.url, api_key="none", max_in_flight=n)
    connection = redis.asyncio.Redis.from_url(given.broker)

    async def no_budget() -> None:
        raise AssertionError("opened above")

    keys = LimiterKeys.of("bench", url=given.url, model="test")
    judge = Judge(
        client,
        "test",
        profile=JudgeProfile(),
        slots=Slots(n),
        limiter=SharedLimiter(connection, keys, is_up=client.is_up, open_budget=no_budget),
        cache=ReplyCache(connection, judge_key="a-key-of-the-judge"),
    )
    text, until, done = "x" * PROMPT_CHARACTERS, 0.0, 0

    async def shards(who: int, size: int) -> None:
        """Shard after shard, as a worker's job threads hand them over."""
        nonlocal done
        number = 0
        while number == 0 or time.perf_counter() < until:
            name = f"{os.getpid()} {who} {number} {until}"
            found = await judge.scorings([f"{text} {name} {k}" for k in range(size)])
            done += sum(hasattr(v, "value") for v in found.scorings)
            number += 1

    await shards(0, n)
    started, cpu, done = time.perf_counter(), time.process_time(), 0
    until = started + given.seconds
    # four shards under way at once, so that the next one's calls fill in for the last one's end
    size = 200 if n <= 256 else 400
    await asyncio.gather(*(shards(k, size) for k in range(1, 5)))
    found = figures(done, started, cpu)
    await client.close()
    return found


def figures(done: int, started: float, cpu: float) -> dict[str, float]:
    """Rate and CPU of what was done since."""
    seconds = time.perf_counter() - started
    return {"rate": done / seconds, "cpu_ms": 1000 * (time.process_time() - cpu) / max(done, 1)}


if __name__ == "__main__":
    main()
