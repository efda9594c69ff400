"""The latest log lines of a run's jobs, from all machines: on the broker, and kept in its record.

A Redis stream of bounded length: old lines go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import redis

from domain.errors import BrokerError
from storage.broker.state import EXPIRE_S
from storage.record.store import Store

# About 300 bytes each: 3 MB a run at most, and the whole story of a run of 2000 jobs.
KEEP_LINES = 10_000

READ_AT_ONCE = 1000
KEPT = "logs/jobs.jsonl"
FAILED = ("job_failed", "job_dead")
"""The events of a job that ended without its artifact."""

YEAR_5000 = 95_617_584_000


@dataclass(frozen=True)
class LogLine:
    """One line about a job; `at` is in seconds since 1970 by the worker's clock."""

    at: float
    level: str
    worker: str
    job: str
    event: str
    text: str
    trace: str = ""


WORDS = tuple(field.name for field in fields(LogLine) if field.name != "at")


def append_log_line(client: redis.Redis, run_id: str, line: LogLine) -> None:
    """Add a line to a run's log."""
    pipe = client.pipeline(transaction=False)
    pipe.xadd(_key(run_id), {"line": json.dumps(asdict(line))}, maxlen=KEEP_LINES)
    pipe.expire(_key(run_id), EXPIRE_S)
    pipe.execute()


def read_log_lines(
    client: redis.Redis, run_id: str, *, after: str = "-"
) -> Iterator[tuple[str, LogLine]]:
    """(position, line) of a run's log, oldest first; `after` a position to go on from there."""
    start = after if after == "-" else f"({after}"
    while True:
        found = cast(
            Sequence[tuple[bytes, dict[bytes, Any]]],
            client.xrange(_key(run_id), min=start, count=READ_AT_ONCE),
        )
        for position, entry in found:
            for line in _parsed([entry.get(b"line", b"")]):
                yield position.decode(), line
        if len(found) < READ_AT_ONCE:
            return
        start = f"({found[-1][0].decode()}"


def last_job_log_lines(
    client: redis.Redis, run_id: str, *, levels: Sequence[str], n: int
) -> list[LogLine]:
    """The last n lines of these levels among the latest thousand, newest first."""
    found = cast(
        Sequence[tuple[bytes, dict[bytes, Any]]],
        client.xrevrange(_key(run_id), count=READ_AT_ONCE),
    )
    lines = _parsed(entry.get(b"line", b"") for _, entry in found)
    return [line for line in lines if line.level in levels][:n]


def keep_log_lines(store: Store, client: redis.Redis, run_id: str) -> None:
    """Write what the broker holds of a run's log into its record, beside what is there.

    Raises BrokerError when the broker does not give it.
    """
    try:
        seen = {*kept_log_lines(store), *(line for _, line in read_log_lines(client, run_id))}
    except redis.RedisError as error:
        raise BrokerError(f"the broker does not give the log of {run_id}: {error}") from error
    latest = sorted(seen, key=lambda line: line.at)[-KEEP_LINES:]
    store.write(KEPT, "".join(json.dumps(asdict(line)) + "\n" for line in latest).encode())


def kept_log_lines(store: Store) -> list[LogLine]:
    """The log in a run's record, oldest first; empty when none was kept, without damaged lines."""
    try:
        text = store.read(KEPT).decode(errors="replace")
    except KeyError:
        return []
    return list(_parsed(text.split("\n")))


def _parsed(texts: Iterable[str | bytes]) -> Iterator[LogLine]:
    """The lines among what lies there: another version's without what we do not know, and nothing
    of what is torn or was never ours."""
    for text in texts:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(found, dict):
            continue
        at, words = found.get("at"), [found.get(name, "") for name in WORDS]
        if not isinstance(at, int | float) or not 0 <= at < YEAR_5000:
            continue
        if all(isinstance(word, str) for word in words) and found.get("text"):
            # half a surrogate pair can be written in JSON and in nothing else
            yield LogLine(float(at), *(w.encode(errors="replace").decode() for w in words))


def _key(run_id: str) -> str:
    return f"orchestrate:{run_id}:log"
